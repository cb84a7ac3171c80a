"""The wire format: a message is its length and that many bytes, and its answer is their digest.

With the digest the sender can check that every byte arrived in the right place of the right message. It is a cheap
digest, because both kinds of streams pay for it, and costs that both have hide the difference between them.
"""

import struct
import zlib
from typing import Literal

HOST = "127.0.0.1"

Kind = Literal["asyncio", "aiopool"]
"""The kind of streams."""

KINDS: tuple[Kind, ...] = ("asyncio", "aiopool")

HEADER = struct.Struct("!I")
"""The length of the message that follows."""

DIGEST = struct.Struct("!I")
"""The answer."""


def digest(payload: bytes | memoryview) -> bytes:
    """The right answer to a message with this `payload`."""
    return DIGEST.pack(zlib.crc32(payload))
