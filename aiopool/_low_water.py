"""Have the kernel wait for much of a big message, where the loop would be woken for every bit of it.

A loop that receives a message of a megabyte is woken a dozen times, whenever some packets have come in. Each time it
asks the selector, calls back, and receives; that costs about as much as to copy the bytes, and all that comes of it is
that it waits again. A socket has a low-water mark, SO_RCVLOWAT, below which the kernel does not call it readable. Who
knows how much is still to come can set that, and is woken once or twice.

The end of a stream and an error make a socket readable whatever the mark, and so does a full receive buffer. Only Linux
is known here to keep all of that, since the last of its hangs was mended. Elsewhere nothing is done, and nothing lost
but time.

The trade-off: what lies below the mark lies in the kernel, and the next megabyte is only asked of the peer when it has
been fetched. So the mark stays far below what the kernel's buffer may grow to. And it has to be lowered before anything
else is read from the socket, or that would wait for bytes that never come.

The end of a message is no part of it. A sender without TCP_NODELAY keeps its last segment, if that is not full, until
all others are acknowledged; and the kernel, where nobody reads, may put off the acknowledgment by 40 ms. So the mark
leaves out the last of what is missing, and before that is waited for, what is there is acknowledged.
"""

import platform
import re
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from ._native import native

MOST = 512 * 1024
"""Bytes. What is gained beyond is small, and a peer far away would begin to wait for us."""

LEAST = 128 * 1024
"""Bytes. To be woken for less costs no more than to set the mark."""

TAIL = 64 * 1024
"""Bytes that the mark leaves out: a segment, and on loopback that has nearly as many. No network has bigger ones."""

NONE = 1
"""The mark of a socket that nobody touched: readable as soon as there is anything."""


def _is_known_to_work() -> bool:
    # "tcp: fix SO_RCVLOWAT related hangs under mem pressure" came with 5.12.
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    return sys.platform == "linux" and release is not None and (int(release[1]), int(release[2])) >= (5, 12)


_KNOWN_TO_WORK = _is_known_to_work()


SetMark = Callable[[int, bool], None]
"""Called with the mark in bytes, and with whether to acknowledge what is there."""


def mark_of(transport: Any) -> SetMark | None:
    """What sets the mark of a transport's socket; `None`: it does not work there.

    Not to be called any more when the transport has lost its connection: then the descriptor may be another's.
    """
    if not _KNOWN_TO_WORK or transport.get_extra_info("sslcontext") is not None:
        return None  # what TLS makes of so many bytes, nobody can say
    found = transport.get_extra_info("socket")
    if not _is_tcp(found):
        return None
    if native is not None:
        return partial(native.set_low_water, found.fileno())
    return partial(_set_mark, found)


def _is_tcp(found: Any) -> bool:
    # Selectors do not look at the mark of a Unix socket, and what multipath TCP makes of it depends on the kernel.
    family = getattr(found, "family", None)
    return family in (socket.AF_INET, socket.AF_INET6) and found.proto in (0, socket.IPPROTO_TCP)


def _set_mark(tcp: Any, nbytes: int, acknowledge: bool) -> None:
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, nbytes)
    if acknowledge:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
