"""Non-blocking receives from a transport's socket, which bypass the loop.

Go and tokio receive first, and wait only if the kernel has no data. asyncio waits first: the loop asks the selector,
the selector reports that the socket is readable, the transport receives, and a future wakes the task. On a busy stream,
whose data is there all the time, all this costs more than the receive itself.

This is only done with transports that receive nothing until the loop tells them that the socket is readable, so that
they just do not see the bytes that were received here. These are the transports of plain sockets on asyncio's selector
loops and on uvloop. TLS has to decrypt first, and other transports may have a pending receive, so that bytes could be
reordered.
"""

import os
import socket
from typing import Any

from .._native import in_c
from ._receive_buffer import ReceiveBuffer

LEFT_AT_CLOSE = 1024 * 1024
"""The most bytes that are read from the kernel before a socket is closed."""

_MODULES = ("asyncio.selector_events", "uvloop.loop")
"""The modules of transports that receive nothing until their socket is readable."""


def descriptor_of(transport: Any) -> int:
    """The descriptor of the socket, if it may be received from directly; otherwise -1.

    Do not use it after the transport has lost its connection, because another file may then have the same descriptor.
    """
    return _descriptor(transport) if type(transport).__module__ in _MODULES else -1


def _descriptor(transport: Any) -> int:
    """The descriptor of the socket, if its data are those of the reader; otherwise -1."""
    if not hasattr(os, "readv") or transport.get_extra_info("sslcontext") is not None:
        return -1
    found = transport.get_extra_info("socket")
    if getattr(found, "type", None) != socket.SOCK_STREAM:
        return -1
    descriptor: int = found.fileno()
    return descriptor


@in_c
def receive_now(descriptor: int, received: ReceiveBuffer, most: int) -> int:
    """Receive up to `most` bytes into the room of `received`, and return how many. 0: no data, or the stream's end.

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
    """Read and drop the data that the kernel has received, before the socket is closed.

    Closing a socket with unread data sends a reset, after which the peer may lose the response that was written before.
    """
    descriptor = _descriptor(transport)
    if descriptor < 0:
        return
    scratch = bytearray(LEFT_AT_CLOSE // 16)
    left = LEFT_AT_CLOSE
    try:
        # Repeated until there is no data, because the peer's kernel may send more meanwhile.
        while left > 0 and (nbytes := os.readv(descriptor, [scratch])):
            left -= nbytes
    except OSError:
        pass  # there is no more data, or the connection is broken
