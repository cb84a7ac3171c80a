"""Receive from a transport's socket without waiting, past the loop.

Go and tokio receive first, and wait only when the kernel has nothing. asyncio waits first: the loop asks the selector,
the selector says that there is something, the transport receives it, a future wakes the task. For a stream that is
busy, all of that costs more than the receive itself, and something was there all the time.

It is only done where the transport does nothing else when the loop tells it that its socket is readable: then what was
received here is just not there any more. That is so for plain sockets on asyncio's selector loops and on uvloop. TLS
has to decrypt first; other transports may have a receive of their own under way, and the order of bytes would be lost.
"""

import os
import socket
from typing import Any

from .._native import in_c
from ._receive_buffer import ReceiveBuffer

LEFT_AT_CLOSE = 1024 * 1024
"""Bytes that are taken from the kernel before a socket is closed, at most."""

_MODULES = ("asyncio.selector_events", "uvloop.loop")
"""Where the transports are that receive nothing unless their socket is readable."""


def descriptor_of(transport: Any) -> int:
    """Of the socket, if one can receive from it past the transport; else -1.

    Not to be used any more when the transport has lost its connection: then it may be another's.
    """
    return _descriptor(transport) if type(transport).__module__ in _MODULES else -1


def _descriptor(transport: Any) -> int:
    """Of the socket, if what it receives is what the reader is to have; else -1."""
    if not hasattr(os, "readv") or transport.get_extra_info("sslcontext") is not None:
        return -1
    found = transport.get_extra_info("socket")
    if getattr(found, "type", None) != socket.SOCK_STREAM:
        return -1
    descriptor: int = found.fileno()
    return descriptor


@in_c
def receive_now(descriptor: int, received: ReceiveBuffer, most: int) -> int:
    """Receive up to `most` bytes into their room; how many. 0: nothing is there, or the stream has ended.

    :raises OSError: the connection broke.
    """
    nbytes = 0
    try:
        nbytes = os.readv(descriptor, [received.room()[:most]])
    except (BlockingIOError, InterruptedError):
        pass
    finally:
        if nbytes == 0:
            received.release_room()
    if nbytes:
        received.received(nbytes)
    return nbytes


def drop_what_is_left(transport: Any) -> None:
    """Take what the kernel has received, before the socket is closed.

    To close a socket with bytes that nobody has taken sends a reset, and the peer that gets one may lose the answer
    that was written before.
    """
    descriptor = _descriptor(transport)
    if descriptor < 0:
        return
    scratch = bytearray(LEFT_AT_CLOSE // 16)
    left = LEFT_AT_CLOSE
    try:
        # Until there is nothing: on the way, the peer's kernel may send more.
        while left > 0 and (nbytes := os.readv(descriptor, [scratch])):
            left -= nbytes
    except OSError:
        pass  # there is nothing more, or the connection is going anyway
