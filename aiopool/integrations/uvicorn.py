"""uvicorn's HTTP protocol, with large request bodies received into pooled buffers.

    uvicorn app:app --http aiopool.integrations.uvicorn:PooledHttpToolsProtocol

The problem: an upload of a megabyte is copied through five fresh pieces of memory before the application has it in one
piece. The transport creates a `bytes` object for each receive, httptools copies the body out of it, uvicorn appends
that to a `bytearray` and converts this to `bytes` for the application, which joins the `bytes` of several messages.
With glibc's defaults the system has to supply much of that memory page by page, which costs more than all the copying.

The solution: uvicorn's protocol and its parser get the same bytes in the same order, but in larger pieces. During a
large request body, a `_Receiver` stands between the transport and the protocol. It collects the body in one pooled
buffer until the body is complete, the buffer is full, or a few milliseconds have passed, and then passes everything to
the parser at once. The `bytes` object that httptools creates goes to the application as it is: one copy, and one
message. Headers, small bodies, chunked bodies, responses, WebSockets, limits and errors are left to uvicorn.

The trade-off: when a body arrives slowly, the application gets each piece up to `HOLD` seconds later than without this
class, and a connection holds up to `PIECE` bytes while it receives. The client's `Content-Length` is only a hint for
how much to collect. If it is wrong, the same bytes still reach the parser in the same order.
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
check_names("uvicorn", HttpToolsProtocol.on_headers_complete, ["cycle"])
check_names("uvicorn", HttpToolsProtocol.on_body, ["body", "cycle"])
check_names("uvicorn", RequestResponseCycle.__init__, ["body", "more_body", "response_complete"])
check_names("uvicorn", RequestResponseCycle.receive, ["body", "message_event"])

LARGE = 256 * KIB
"""Bodies of at least this size are collected in a buffer; for smaller ones that costs more than it saves, above all if
they arrive in pieces."""

PART = 32 * KIB
"""The smallest part of a large body that is worth collecting. Smaller parts are left to uvicorn."""

KEPT = 64 * KIB
"""The smallest collected piece that goes to the application as the parser creates it."""

ROOM = 4 * KIB
"""How much larger than the rest of a body its buffer is, because uvloop receives once more after filling a buffer."""

PIECE = 1 * MIB + ROOM
"""The most bytes that are collected, and so the most that a connection holds, whatever a client claims."""

HOLD = 0.005
"""The most seconds that part of a body is held back."""

HEADER = 16 * KIB
"""The end of a header is searched in this many bytes. A body behind a longer header, in the same receive, is passed on
at once."""

END_OF_HEADER = b"\r\n\r\n"

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{5,19})[ \t]*\r\n", re.IGNORECASE)
"""Finds a length in a header that may be that of a large body."""

EMPTY = memoryview(b"")

# glibc returns free memory to the system when it exceeds twice the size of the largest block, of up to 32 MiB, that was
# ever mapped and freed. A body of several pieces, and the bytes that an application joins from them, would exceed that
# each time, and cost three times as much. So such a large block is mapped and freed here. Nothing is written to it, so
# it uses no memory. It has no effect if the environment sets glibc's thresholds, or with other allocators.
bytes(32 * MIB - 64 * KIB)


class PooledHttpToolsProtocol(HttpToolsProtocol):
    """uvicorn's `HttpToolsProtocol`, with large request bodies received into pooled buffers.

    To use a pool with other limits, set it in a subclass: `buffers = BufferPool(max_idle_bytes=...)`.
    """

    #: the pool that all connections of the process receive into
    buffers: ClassVar[BufferPool] = BufferPool(min_size=64 * KIB, max_size=PIECE, name="uvicorn")

    _receiver: "_Receiver | None" = None

    def data_received(self, data: bytes) -> None:
        """Called by the transport, except while a large body is being received."""
        cycle = self.cycle
        if len(data) < PART or (cycle is not None and cycle.more_body):
            super().data_received(data)
        elif self._begin_body(data):
            return
        if missing := self.missing():
            self._receive(missing)

    def _begin_body(self, data: bytes) -> bool:
        """Pass on `data`, which begins with a header. Returns whether nothing is left to do."""
        start = _start_of_large_body(data)
        if not start:
            super().data_received(data)
            return False
        super().data_received(data[:start])
        if self.transport.is_closing():
            return True  # the header was invalid
        body = memoryview(data)[start:]
        if (missing := self.missing()) > len(body):
            self._receive(missing).hold(body)
            return True
        self.hand_on(body)
        return False

    def missing(self) -> int:
        """How many bytes of a large body have not arrived yet, if they are worth collecting; otherwise 0."""
        cycle = self.cycle
        if cycle is None or not cycle.more_body or cycle.response_complete:
            return 0
        missing = self._large_length() - len(cycle.body)
        return missing if missing >= PART else 0

    def _large_length(self) -> int:
        """The `Content-Length` of the current request, if it is that of a large body; otherwise 0."""
        for name, value in self.headers:
            if name == b"content-length":
                length = int(value)
                return length if length >= LARGE else 0
        return 0

    def hand_on(self, data: memoryview) -> None:
        """Pass `data` to uvicorn, which does not keep it, because its parser creates a `bytes` object from it."""
        if len(data) >= KEPT:
            self._keep_next_piece()
        super().data_received(cast(bytes, data))

    def _keep_next_piece(self) -> None:
        """Let uvicorn pass on the next `bytes` of a large body as its parser creates them, instead of copying them."""
        # Never for a chunked body: adding many small chunks to `bytes` takes quadratic time.
        if self.cycle is not None and not self.cycle.body and self._large_length():
            # An empty `bytes` instead of uvicorn's `bytearray`: adding `bytes` to it, and converting the result to
            # `bytes`, copies nothing.
            self.cycle.body = b""  # type: ignore[assignment]

    def _receive(self, missing: int) -> "_Receiver":
        if self._receiver is None:
            self._receiver = _Receiver(self)
        self._receiver.begin(missing)
        return self._receiver


class _Receiver(asyncio.BufferedProtocol):
    """Receives the rest of a large body into one buffer, of which the first `_end` bytes are filled."""

    def __init__(self, protocol: PooledHttpToolsProtocol) -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._buffer: memoryview | None = None
        self._end = 0
        self._missing = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, missing: int) -> None:
        """Begin to receive the `missing` bytes of a body."""
        self._missing = missing
        if self._transport.get_protocol() is not self:
            self._transport.set_protocol(self)

    def hold(self, data: memoryview) -> None:
        """Collect `data`, which arrived with the header and is less than is missing."""
        while data:
            target = self.get_buffer(-1)
            part = data[: len(target)]
            target[: len(part)] = part
            self.buffer_updated(len(part))
            data = data[len(part) :]

    # --- called by the transport ---

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer for the next bytes."""
        buffer = self._buffer
        if buffer is not None:
            return buffer[self._end :]
        self._buffer = buffer = self._protocol.buffers.acquire(min(self._missing + ROOM, PIECE))
        # Possibly nothing is written to it: a TLS record may be incomplete, and uvloop receives until there is no more.
        self._protocol.loop.call_soon(self._withdraw)
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Note that `nbytes` were written to the buffer."""
        assert self._buffer is not None
        self._end += nbytes
        if self._end == len(self._buffer) or self._end >= self._missing:
            self._feed()
        elif self._timer is None:
            self._timer = self._protocol.loop.call_later(HOLD, self._feed)

    def eof_received(self) -> None:
        """Pass on the collected bytes, and then the end of the stream."""
        if self._end:
            self._feed()
        self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the collected bytes."""
        self._let_go()
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """As in uvicorn's protocol."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """As in uvicorn's protocol."""
        self._protocol.resume_writing()

    # --- the collected bytes ---

    def _feed(self) -> None:
        """Pass on the collected bytes. If that was the end of the body, let uvicorn receive again."""
        buffer, end = self._let_go()
        if self._transport.is_closing():
            return  # uvicorn would not receive anything more either
        self._missing -= end
        self._protocol.hand_on(buffer[:end])
        if self._missing <= 0:
            # The header of another request may have arrived with it.
            self._missing = self._protocol.missing()
            if not self._missing:
                self._transport.set_protocol(self._protocol)

    def _let_go(self) -> tuple[memoryview, int]:
        """Drop the buffer, and return it with the number of bytes in it."""
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
    """Where a large body starts, if `received` begins with its header; otherwise 0."""
    end = received.find(END_OF_HEADER, 0, HEADER)
    if end < 0:
        return 0
    start = end + len(END_OF_HEADER)
    found = CONTENT_LENGTH.search(received, 0, start)
    return 0 if found is None or int(found[1]) < LARGE else start
