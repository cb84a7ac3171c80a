"""uvicorn's HTTP protocol, with large request bodies received into pooled buffers.

    uvicorn app:app --http aiopool.integrations.uvicorn:PooledHttpToolsProtocol

The problem: an upload of a megabyte passes through five fresh pieces of memory before the application has it in one.
The transport makes a `bytes` for each receive, httptools cuts the body out of it, uvicorn appends that to a `bytearray`
and makes a `bytes` of it for the application, which joins what came in several messages. With glibc's defaults the
system has to supply much of that memory page by page, and that costs more than all the copying.

The way out: uvicorn's protocol and its parser get the same bytes in the same order as ever, only in larger pieces.
While the body of a request is large, a `_Receiver` stands between the transport and the protocol. It holds the body
back in one pooled buffer until it is complete, the buffer is full, or a few milliseconds have passed, and then hands
all of it to the parser at once. The `bytes` that httptools makes go to the application as they are: one copy, and one
message. Headers, small bodies, chunked bodies, answers, WebSockets, limits and errors are left to uvicorn.

The trade-off: while a body comes in slowly, the application gets each piece up to `HOLD` seconds later than without
this class, and a connection holds up to `PIECE` bytes while it receives. What a client claims in `Content-Length` is
only a hint for how much to hold back. If the hint is wrong, the same bytes still reach the parser in the same order.
"""

import asyncio
import re
from typing import ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .._buffer_pool import KIB, MIB, BufferPool
from ._versions import check_names, check_version

check_version("uvicorn", "0.38", "0.54")
check_names("uvicorn", HttpToolsProtocol.__init__, ["cycle", "headers", "loop", "parser", "transport"])
check_names("uvicorn", HttpToolsProtocol.data_received, ["feed_data", "parser"])
check_names("uvicorn", HttpToolsProtocol.on_body, ["body", "cycle"])
check_names("uvicorn", RequestResponseCycle.__init__, ["body", "more_body", "response_complete"])
check_names("uvicorn", RequestResponseCycle.receive, ["body", "message_event"])

LARGE = 64 * KIB
"""Bodies from this size on are held back; smaller ones cost less as they are."""

PART = 32 * KIB
"""Of a large body, the least that is worth it: less than this is not received, or kept out of a receive, by itself."""

ROOM = 4 * KIB
"""How much larger than the rest of a body its buffer is: when a buffer has become full, uvloop receives once more."""

PIECE = 1 * MIB + ROOM
"""The most that is held back, and so the most that a connection holds, whatever a client claims."""

HOLD = 0.005
"""For how many seconds part of a body is held back at most."""

HEADER = 16 * KIB
"""As far as the end of a header is looked for. What follows a longer one in the same receive is not held back."""

END_OF_HEADER = b"\r\n\r\n"

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{5,19})[ \t]*\r\n", re.IGNORECASE)
"""In a header, one that may be of a large body."""

EMPTY = memoryview(b"")

# glibc gives free memory back to the system when there is more than twice as much as the largest block that was ever
# mapped and freed, of up to 32 MiB. A body of several pieces and what an application joins of them would exceed that
# each time, and cost three times as much. Nothing is written to these bytes, so they take no memory. They change
# nothing where the environment sets glibc's thresholds, nor with other allocators.
bytes(32 * MIB - 64 * KIB)


class PooledHttpToolsProtocol(HttpToolsProtocol):
    """`HttpToolsProtocol` of uvicorn, with large request bodies received into pooled buffers.

    To bound the pool otherwise, put one of your own into a subclass: `buffers = BufferPool(max_idle_bytes=...)`.
    """

    #: what all connections of the process receive into
    buffers: ClassVar[BufferPool] = BufferPool(min_size=LARGE, max_size=PIECE, name="uvicorn")

    _receiver: "_Receiver | None" = None

    def data_received(self, data: bytes) -> None:
        """Called by the transport as long as no large body is under way."""
        if len(data) >= PART and (start := _start_of_large_body(data)):
            super().data_received(data[:start])
            if self.transport.is_closing():
                return  # the header was no good
            body = memoryview(data)[start:]
            if (missing := self.missing()) > len(body):
                self._receive(missing).hold(body)
                return
            self.hand_on(body)
        else:
            super().data_received(data)
        if missing := self.missing():
            self._receive(missing)

    def missing(self) -> int:
        """How much of a large body has not come yet, if one is under way and that is worth it; else 0."""
        cycle = self.cycle
        if cycle is None or not cycle.more_body or cycle.response_complete:
            return 0
        for name, value in self.headers:
            if name == b"content-length":
                length = int(value)
                missing = length - len(cycle.body)
                return missing if length >= LARGE and missing >= PART else 0
        return 0

    def hand_on(self, data: memoryview) -> None:
        """Let uvicorn have `data`, which it does not keep: its parser makes `bytes` of it."""
        if len(data) >= LARGE and self.cycle is not None and not self.cycle.body:
            # Bytes that are added to empty bytes, and bytes made of bytes, are not copied by uvicorn.
            self.cycle.body = b""  # type: ignore[assignment]
        super().data_received(cast(bytes, data))

    def _receive(self, missing: int) -> "_Receiver":
        if self._receiver is None:
            self._receiver = _Receiver(self)
        self._receiver.begin(missing)
        return self._receiver


class _Receiver(asyncio.BufferedProtocol):
    """What a transport receives the rest of a large body into: one buffer, of which `_end` bytes are held back."""

    def __init__(self, protocol: PooledHttpToolsProtocol) -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._buffer: memoryview | None = None
        self._end = 0
        self._missing = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, missing: int) -> None:
        """Receive what is `missing` of a body."""
        self._missing = missing
        if self._transport.get_protocol() is not self:
            self._transport.set_protocol(self)

    def hold(self, data: memoryview) -> None:
        """Hold back what came with the header: less than is missing."""
        while data:
            target = self.get_buffer(-1)
            part = data[: len(target)]
            target[: len(part)] = part
            self.buffer_updated(len(part))
            data = data[len(part) :]

    # --- what a transport calls ---

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes are to be written."""
        buffer = self._buffer
        if buffer is not None:
            return buffer[self._end :]
        self._buffer = buffer = self._protocol.buffers.acquire(min(self._missing + ROOM, PIECE))
        # Nothing may be written to it: a TLS record may be incomplete, and uvloop receives until that is in vain.
        self._protocol.loop.call_soon(self._withdraw)
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many were written."""
        assert self._buffer is not None
        self._end += nbytes
        if self._end == len(self._buffer) or self._end >= self._missing:
            self._feed()
        elif self._timer is None:
            self._timer = self._protocol.loop.call_later(HOLD, self._feed)

    def eof_received(self) -> None:
        """The application gets what was held back before it is told."""
        if self._end:
            self._feed()
        self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is handed on."""
        self._let_go()
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """As uvicorn does."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """As uvicorn does."""
        self._protocol.resume_writing()

    # --- what is held back ---

    def _feed(self) -> None:
        """Hand on what was received, and let uvicorn receive again if that was the end of the body."""
        buffer, end = self._let_go()
        if self._transport.is_closing():
            return  # nor would uvicorn receive anything more
        self._missing -= end
        self._protocol.hand_on(buffer[:end])
        if self._missing <= 0:
            # The header of another request may have come with it.
            self._missing = self._protocol.missing()
            if not self._missing:
                self._transport.set_protocol(self._protocol)

    def _let_go(self) -> tuple[memoryview, int]:
        """Hold neither a buffer nor bytes in it any longer; what they were."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held = self._buffer or EMPTY, self._end
        self._buffer, self._end = None, 0
        return held

    def _withdraw(self) -> None:
        if not self._end:
            self._buffer = None


def _start_of_large_body(received: bytes) -> int:
    """Where the body begins, if a large one lies behind its header in `received`; else 0."""
    end = received.find(END_OF_HEADER, 0, HEADER)
    if end < 0:
        return 0
    start = end + len(END_OF_HEADER)
    length = CONTENT_LENGTH.search(received, 0, start)
    return start if length is not None and int(length[1]) >= LARGE else 0
