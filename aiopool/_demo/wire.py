"""What goes over the wire: a message is its length and that many bytes, its answer is their digest.

The digest lets the sender see that every byte arrived, in its place, in this message and in no other. It is a cheap
one, because both kinds of streams pay for it alike, and what both pay hides the difference between them.
"""

import struct
import zlib
from typing import Literal

HOST = "127.0.0.1"

Kind = Literal["asyncio", "aiopool"]
"""Whose streams."""

KINDS: tuple[Kind, ...] = ("asyncio", "aiopool")

HEADER = struct.Struct("!I")
"""The length of the message that follows."""

DIGEST = struct.Struct("!I")
"""The answer."""


def digest(payload: bytes | memoryview) -> bytes:
    """The right answer to a message of `payload`."""
    return DIGEST.pack(zlib.crc32(payload))
