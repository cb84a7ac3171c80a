"""What goes over the wire: a message is its length and that many bytes, its answer is their digest.

The digest lets the sender see that every byte arrived, in its place, in the buffer of this message and of no other.
It is the cheapest of the standard library that does so, because fresh and pooled buffers pay for it alike, and what
both pay hides the difference between them.
"""

import struct
import zlib

HOST = "127.0.0.1"

HEADER = struct.Struct("!I")
"""The length of the message that follows."""

DIGEST = struct.Struct("!I")
"""The answer."""


def digest(payload: bytes | bytearray | memoryview) -> bytes:
    """The right answer to a message of `payload`."""
    return DIGEST.pack(zlib.crc32(payload))
