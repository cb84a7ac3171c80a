"""asyncio's streams, with a reader that receives into pooled buffers.

`open_connection`, `start_server` and their Unix twins are asyncio's, with the same arguments plus `buffers=`; the
writer is asyncio's own. The reader gives memoryviews where asyncio's gives `bytes`, and is told apart by little else.
What it saves is told in `_inbox`; what it costs is that a view must be let go of before its memory is used again, and
that it has no methods of `bytes`: for lines, which want those and are small, the reader gives `bytes`.

The protocol is a `BufferedProtocol`, which asyncio and uvloop both ask where to receive to, over TLS as well. A woken
task costs more than receiving a few kilobytes, so the reader is only woken when what it waits for is there.
"""

import asyncio
import re
import socket
from asyncio import AbstractEventLoop, IncompleteReadError, LimitOverrunError, StreamWriter
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from operator import index
from typing import Any

from . import _low_water
from ._buffer_pool import KIB, BufferPool
from ._checks import callable_or_none, digits, natural, shown
from ._inbox import PINNED, Inbox

LIMIT = 64 * KIB
"""asyncio's default."""

ClientConnected = Callable[["StreamReader", StreamWriter], Awaitable[None] | None]

_default = BufferPool(name="streams")


class StreamReader(Inbox):
    """What `aiopool.streams` gives in the place of asyncio's reader. For the loop that it was made on.

    `read` and `readexactly` return memoryviews: drop them when you are done with them, and their memory is used again.
    `readuntil`, `readline` and `async for line in reader` return `bytes`.

    `limit` is asyncio's: the longest line in bytes, and half of what is received without being waited for. A message
    asked for by `readexactly` may be as big as `max_size` of the buffer pool, if that is more than `limit`.

    In the examples below, `received(data)` is a reader to which a peer has sent `data`, and then no more.

    :raises TypeError: `buffers` is no `BufferPool`, or `limit` no integer.
    :raises ValueError: `limit` is not more than 0.
    """

    __slots__ = (
        "__weakref__",
        "_eof",
        "_exception",
        "_knows_mark",
        "_limit",
        "_longest",
        "_loop",
        "_mark",
        "_pause_at",
        "_paused",
        "_set_mark",
        "_transport",
        "_waiter",
    )

    def __init__(self, buffers: BufferPool, *, limit: int = LIMIT, loop: AbstractEventLoop | None = None) -> None:
        if not isinstance(buffers, BufferPool):
            raise TypeError(f"buffers must be a BufferPool, not {shown(buffers)}")
        limit = natural("limit", limit)
        if limit == 0:
            raise ValueError("limit must be more than 0 bytes")
        super().__init__(buffers)
        self._limit = limit
        self._pause_at = 2 * limit
        self._longest = max(limit, buffers.max_size)
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._transport: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._eof = False
        self._exception: BaseException | None = None
        self._paused = False
        # The low-water mark, and what sets it; found out when it is needed, for it takes memory.
        self._mark = _low_water.NONE
        self._set_mark: _low_water.SetMark | None = None
        self._knows_mark = False

    def __repr__(self) -> str:
        eof = ", eof" if self._eof else ""
        return f"<aiopool.streams.StreamReader {self._unread()} bytes{eof}>"

    # --- reading ---

    async def read(self, n: int = -1) -> memoryview:
        """Up to `n` bytes, as soon as there are any; all until the end of the stream if `n` is negative.

        An empty view: the stream has ended. With a positive `n` it may be less than is there, and a cancelled read has
        taken nothing.

        >>> reader = received(b"some bytes")
        >>> bytes(asyncio.run(reader.read(4))), bytes(asyncio.run(reader.read()))
        (b'some', b' bytes')

        :raises OSError: the connection broke, and this is how. So do all other reads.
        """
        if type(n) is not int:
            n = index(n)  # an integer of NumPy's, of 8 or 16 bits maybe, overflows when a position is added to it
        while n < 0 or not self._end:
            if self._exception is not None:
                raise self._exception
            if self._eof or n == 0:
                break
            # When all is asked for nothing is taken before the end, so that a cancelled read has lost nothing.
            await self._wait("read", self._unread() + 1)
        count = self._unread() if n < 0 else min(n, self._end - self._start)
        return self._take(count) if count else memoryview(b"")

    async def readinto(self, buffer: Any) -> int:
        r"""Fill a writable buffer with what is there, as soon as there is any; how many bytes. 0: the stream has ended.

        >>> target = bytearray(10)
        >>> asyncio.run(received(b"some").readinto(target)), target[:5]
        (4, bytearray(b'some\x00'))

        :raises TypeError: `buffer` can't be written to, or is not contiguous.
        """
        with memoryview(buffer) as view, view.cast("B") as target:
            if target.readonly:
                raise TypeError(f"readinto() takes a writable buffer, not {shown(buffer)}")
            with await self.read(len(target)) as received:
                target[: len(received)] = received
                return len(received)

    async def readexactly(self, n: int) -> memoryview:
        """Exactly `n` bytes, in one piece. Large ones were received where they are.

        >>> reader = received(bytes([0, 5]) + b"hello")
        >>> length = int.from_bytes(asyncio.run(reader.readexactly(2)), "big")
        >>> bytes(asyncio.run(reader.readexactly(length)))
        b'hello'

        :raises IncompleteReadError: the stream ended before; its `partial` has the `bytes` that came.
        :raises LimitOverrunError: `n` is more than `max_size` of the buffer pool and more than `limit`. Nothing was
            allocated or read: a peer can claim what it likes.
        :raises ValueError: `n` is negative.
        """
        if type(n) is not int:
            n = natural("n", n)  # as in read
        # The usual case of _take, written out.
        stop = self._start + n
        if self._start < stop < self._end:
            chunk: Any = self._chunk
            view: memoryview = chunk[self._start : stop]
            self._start = stop
            return view if n * PINNED >= len(chunk) else memoryview(bytearray(view))
        if natural("n", n) > self._longest:
            raise LimitOverrunError(
                f"{digits(n)} bytes are more than max_size ({self._buffers.max_size}) and limit ({self._limit}): "
                "if that is no mistake or attack, pass a BufferPool with a larger max_size as buffers",
                0,
            )
        while self._end - self._start + self._next_end < n or self._exception is not None:
            if self._exception is not None:
                raise self._exception
            if self._eof:
                raise IncompleteReadError(self._take_bytes(self._unread()), n)
            waiter = self._wait("readexactly", n)
            try:
                self._wake_at(n - self._unread())
                await waiter
            finally:
                # At once and not when somebody next waits: that may be a TLS handshake, which does not ask us.
                self._wake_at(_low_water.NONE)
        return self._take(n) if n else memoryview(b"")

    async def readuntil(self, separator: bytes | tuple[bytes, ...] = b"\n") -> bytes:
        """All up to and including the first `separator`; of several, the one that ends first.

        >>> reader = received(b"key=value;")
        >>> asyncio.run(reader.readuntil(b"=")), asyncio.run(reader.readuntil((b"|", b";")))
        (b'key=', b'value;')

        :raises IncompleteReadError: the stream ended before; its `partial` has the `bytes` that came.
        :raises LimitOverrunError: there is none in the first `limit` bytes. They can still be read by other means.
        :raises TypeError: a separator is no `bytes`.
        :raises ValueError: there is no separator, or it is empty.
        """
        separators = _sorted(separator)
        searched = 0
        while (found := self._find(separators, searched)) is None:
            if self._exception is not None:
                raise self._exception
            unread = self._unread()
            if unread >= len(separators[0]):
                # All but what may be the beginning of a separator.
                searched = max(0, unread + 1 - len(separators[-1]))
                if searched > self._limit:
                    raise LimitOverrunError("Separator is not found, and chunk exceed the limit", searched)
            if self._eof:
                raise IncompleteReadError(self._take_bytes(unread), None)
            await self._wait("readuntil", unread + 1)
        start, stop = found
        if start > self._limit:
            raise LimitOverrunError("Separator is found, but chunk is longer than limit", start)
        return self._take_bytes(stop)

    async def readline(self) -> bytes:
        r"""A line with its newline, which only the last one may lack. Empty: the stream has ended.

        Or let `async for line in reader` ask for all of them.

        >>> reader = received(b"first\nlast")
        >>> [asyncio.run(reader.readline()) for _ in range(3)]
        [b'first\n', b'last', b'']

        :raises ValueError: the line is longer than `limit`. It is thrown away, or as much of it as was received.
        """
        try:
            return await self.readuntil(b"\n")
        except IncompleteReadError as error:
            return error.partial
        except LimitOverrunError as error:
            found = self._find((b"\n",), error.consumed)
            self._take_bytes(error.consumed + 1 if found == (error.consumed, error.consumed + 1) else self._unread())
            raise ValueError(error.args[0]) from None

    def __aiter__(self) -> "StreamReader":
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    def at_eof(self) -> bool:
        """Whether the stream has ended and all of it was read.

        >>> reader = received(b"all"); before = reader.at_eof()
        >>> bytes(asyncio.run(reader.read())), before, reader.at_eof()
        (b'all', False, True)
        """
        return self._eof and not self._end

    def _find(self, separators: Sequence[bytes], searched: int) -> tuple[int, int] | None:
        """From where to where the separator goes that ends first, looking from `searched` on."""
        if self._next_end:
            self._gather(self._unread())
        if self._chunk is None:
            return None
        best = None
        for separator in separators:
            match = _search_for(separator)(self._chunk, self._start + searched, self._end)
            if match is not None and (best is None or match.end() < best[1]):
                best = match.span()
        return None if best is None else (best[0] - self._start, best[1] - self._start)

    def _take_bytes(self, n: int) -> bytes:
        if n == 0:
            return b""
        if n > self._end - self._start:
            self._gather(n)
        assert self._chunk is not None
        taken = bytes(self._chunk[self._start : self._start + n])
        self._skip(n)
        return taken

    # --- waiting ---

    def _wait(self, caller: str, needed: int) -> "asyncio.Future[None]":
        """Done when `needed` bytes are there in all, or the stream has ended."""
        if self._waiter is not None and not self._waiter.done():
            raise RuntimeError(f"{caller}() called while another coroutine is already waiting for incoming data")
        if self._paused:
            self._resume()
        if self._chunk is not None:
            self._hold_little()
        # For as long as nothing is taken, even if nobody waits any more: whoever was cancelled may come back for it.
        self._needed = needed
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def _wake_at(self, missing: int, acknowledge: bool = False) -> None:
        """Let the loop be woken when most of what is `missing` is there, or a good part of it."""
        without_tail = missing - _low_water.TAIL
        mark = min(without_tail, _low_water.MOST) if without_tail >= _low_water.LEAST else _low_water.NONE
        if mark == self._mark:
            return
        if not self._knows_mark and self._transport is not None:
            self._knows_mark = True
            self._set_mark = _low_water.mark_of(self._transport)
        if self._set_mark is None:
            return
        try:
            self._set_mark(mark, acknowledge)
        except OSError:
            self._set_mark = None  # the loop was closed, with the transport open, and nobody will be woken
        else:
            self._mark = mark

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- for the protocol ---

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        """What is to pause when nobody reads. It is not paused now."""
        self._wake_at(_low_water.NONE)
        if self._paused:
            # What came with the end of a TLS handshake was too much, and it was what lies under TLS that was paused.
            self._resume()
        self._transport = transport
        self._set_mark = None
        self._knows_mark = False
        self._may_be_in_vain = transport.get_extra_info("sslcontext") is not None

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were received."""
        super().buffer_updated(nbytes)
        unread = self._end - self._start + self._next_end
        if unread < self._needed:
            if self._mark > _low_water.NONE:
                self._wake_at(self._needed - unread, acknowledge=True)
            return
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            # It will run before anything is received on asyncio, and on uvloop after this once more at most.
            waiter.set_result(None)
        elif not self._paused and (self._is_full() or unread - self._needed > self._pause_at):
            self._pause()

    def lose_transport(self) -> None:
        """It is not to be touched any more: its descriptor may soon be another's."""
        self._transport = self._set_mark = None

    def feed_eof(self) -> None:
        """There will be no more."""
        self._eof = True
        self._offered = None
        self._wake()

    def exception(self) -> BaseException | None:
        """What broke the connection, if anything did."""
        return self._exception

    def set_exception(self, exc: BaseException) -> None:
        """Raised by every read from now on; what was not read yet is gone, as with asyncio's reader."""
        self._discard()
        self._exception = exc
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc)

    def _withdraw_soon(self) -> None:
        # Until the loop comes to this, a transport has called buffer_updated, or has received nothing.
        self._loop.call_soon(self._withdraw)

    def _withdraw(self) -> None:
        self._offered = None

    def _pause(self) -> None:
        if self._transport is None:
            return
        try:
            self._transport.pause_reading()
        except NotImplementedError:
            self._transport = None
        else:
            self._paused = True

    def _skip(self, n: int) -> None:
        super()._skip(n)
        if self._paused and self._unread() <= self._limit:
            self._resume()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None:
            self._transport.resume_reading()


def _sorted(separator: bytes | tuple[bytes, ...]) -> Sequence[bytes]:
    """All the separators, the shortest first."""
    given = separator if isinstance(separator, tuple) else (separator,)
    try:
        # Others that hold bytes, as a bytearray does, can be changed, and have no hash.
        separators = [each if type(each) is bytes else memoryview(each).tobytes() for each in given]
    except TypeError:
        raise TypeError(f"readuntil() takes bytes or a tuple of bytes, not {shown(separator)}") from None
    separators.sort(key=len)
    if not separators or not separators[0]:
        raise ValueError(f"readuntil() needs separators of at least one byte, not {shown(separator)}")
    return separators


# A memoryview has no find().
@lru_cache(maxsize=64)
def _search_for(separator: bytes) -> Callable[[memoryview, int, int], "re.Match[bytes] | None"]:
    return re.compile(re.escape(separator), re.DOTALL).search


class _Protocol(asyncio.BufferedProtocol):
    """Between a transport on one side, and a `StreamReader` and an `asyncio.StreamWriter` on the other.

    asyncio's own is no BufferedProtocol, and for uvloop can't be made one. The names with one underscore that nobody
    calls here are what `asyncio.StreamWriter` calls.
    """

    __slots__ = (
        "__weakref__",
        "_client_connected_cb",
        "_closed",
        "_drain_waiters",
        "_lost",
        "_over_ssl",
        "_reader",
        "_task",
        "_writing_paused",
        "buffer_updated",
        "get_buffer",
    )

    def __init__(self, reader: StreamReader, client_connected_cb: ClientConnected | None = None) -> None:
        self._reader = reader
        # The transport calls the reader directly.
        self.get_buffer = reader.get_buffer  # type: ignore[method-assign]
        self.buffer_updated = reader.buffer_updated  # type: ignore[method-assign]
        self._client_connected_cb = client_connected_cb
        self._task: asyncio.Task[None] | None = None
        self._over_ssl = False
        self._writing_paused = False
        self._drain_waiters: list[asyncio.Future[None]] = []
        self._lost = False
        # Made when somebody waits for it, so that thousands of connections do not each have one.
        self._closed: asyncio.Future[None] | None = None

    # --- called by the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._replace_transport(transport)
        if self._client_connected_cb is None:
            return
        reader = self._reader
        writer = StreamWriter(transport, self, None, reader._loop)  # type: ignore[arg-type]
        handling = self._client_connected_cb(reader, writer)
        if asyncio.iscoroutine(handling):
            self._task = reader._loop.create_task(handling)
            self._task.add_done_callback(partial(_handled, transport))

    def eof_received(self) -> bool:
        self._reader.feed_eof()
        return not self._over_ssl  # over TLS there is no half of a connection to keep open

    def connection_lost(self, exc: Exception | None) -> None:
        reader = self._reader
        reader.lose_transport()
        if exc is None:
            reader.feed_eof()
        else:
            reader.set_exception(exc)
        self._lost = True
        self._task = None
        closed = [] if self._closed is None else [self._closed]
        for waiter in [*self._drain_waiters, *closed]:
            _settle(waiter, exc)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        for waiter in self._drain_waiters:
            _settle(waiter, None)

    # --- called by asyncio.StreamWriter ---

    async def _drain_helper(self) -> None:
        exc = self._reader.exception()
        if exc is not None:
            raise exc
        if self._lost:
            raise ConnectionResetError("Connection lost")
        if not self._writing_paused:
            return
        waiter = self._reader._loop.create_future()
        self._drain_waiters.append(waiter)
        try:
            await waiter
        finally:
            self._drain_waiters.remove(waiter)

    def _get_close_waiter(self, writer: StreamWriter) -> "asyncio.Future[None]":
        if self._closed is None:
            self._closed = self._reader._loop.create_future()
            if self._lost:
                _settle(self._closed, self._reader.exception())
        return self._closed

    def _replace_transport(self, transport: asyncio.BaseTransport) -> None:
        self._over_ssl = transport.get_extra_info("sslcontext") is not None
        self._reader.set_transport(transport)

    def _replace_writer(self, writer: StreamWriter) -> None:
        """What 3.11 calls instead."""
        self._replace_transport(writer.transport)


def _settle(waiter: "asyncio.Future[None]", exc: BaseException | None) -> None:
    if waiter.done():
        return
    if exc is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(exc)


def _handled(transport: asyncio.BaseTransport, task: "asyncio.Task[None]") -> None:
    """The task that serves a client has ended."""
    if task.cancelled():
        transport.close()
    elif (exc := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": "Unhandled exception in client_connected_cb", "exception": exc, "transport": transport}
        )
        transport.close()


# --- the functions, which are asyncio's but for buffers= ---


async def open_connection(
    host: str | None = None,
    port: int | str | None = None,
    *,
    limit: int = LIMIT,
    buffers: BufferPool | None = None,
    **kwds: Any,
) -> tuple[StreamReader, StreamWriter]:
    r"""Connect to a server; a reader and a writer. As `asyncio.open_connection`, with the same further arguments.

    `buffers` is what to receive into; without it, one pool that all such streams share.

    >>> async def client(address):
    ...     reader, writer = await streams.open_connection(*address)
    ...     line = await reader.readline()
    ...     writer.close()
    ...     return line
    >>> async def greet(reader, writer):
    ...     writer.write(b"hello\n")
    ...     writer.close()
    >>> async def main():
    ...     async with await streams.start_server(greet, "127.0.0.1", 0) as server:
    ...         return await client(server.sockets[0].getsockname())
    >>> asyncio.run(main())
    b'hello\n'

    :raises OSError: there is no such server, or it does not answer.
    """
    loop: Any = asyncio.get_running_loop()
    protocol = _protocols(limit, buffers)()
    transport, _ = await loop.create_connection(lambda: protocol, host, port, **kwds)
    return _streams(protocol, transport)


async def start_server(
    client_connected_cb: ClientConnected,
    host: str | Sequence[str] | None = None,
    port: int | str | None = None,
    *,
    limit: int = LIMIT,
    buffers: BufferPool | None = None,
    **kwds: Any,
) -> asyncio.Server:
    """Call back with a reader and a writer for each client. As `asyncio.start_server`, with the same further arguments.

    `buffers` is what to receive into; without it, one pool that all such streams share. See `open_connection` for an
    example. What the callback raises goes to the loop's exception handler, and its client is closed.

    :raises OSError: it can't listen there.
    :raises TypeError: the callback can't be called, `buffers` is no `BufferPool`, or `limit` no integer.
    :raises ValueError: `limit` is not more than 0.
    """
    loop: Any = asyncio.get_running_loop()
    server: asyncio.Server = await loop.create_server(
        _protocols(limit, buffers, client_connected_cb), host, port, **kwds
    )
    return server


if hasattr(socket, "AF_UNIX"):

    async def open_unix_connection(
        path: Any = None, *, limit: int = LIMIT, buffers: BufferPool | None = None, **kwds: Any
    ) -> tuple[StreamReader, StreamWriter]:
        """`open_connection` over a Unix socket, as `asyncio.open_unix_connection`."""
        loop = asyncio.get_running_loop()
        protocol = _protocols(limit, buffers)()
        transport, _ = await loop.create_unix_connection(lambda: protocol, path, **kwds)
        return _streams(protocol, transport)

    async def start_unix_server(
        client_connected_cb: ClientConnected,
        path: Any = None,
        *,
        limit: int = LIMIT,
        buffers: BufferPool | None = None,
        **kwds: Any,
    ) -> asyncio.Server:
        """`start_server` over a Unix socket, as `asyncio.start_unix_server`."""
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(_protocols(limit, buffers, client_connected_cb), path, **kwds)


def _protocols(
    limit: int, buffers: BufferPool | None, client_connected_cb: ClientConnected | None = None
) -> Callable[[], _Protocol]:
    """What makes a protocol with its reader for each connection."""
    callable_or_none("client_connected_cb", client_connected_cb)
    pool = _default if buffers is None else buffers

    def make() -> _Protocol:
        return _Protocol(StreamReader(pool, limit=limit), client_connected_cb)

    make()  # else what is wrong with the arguments is seen when the first client comes, if at all
    return make


def _streams(protocol: _Protocol, transport: asyncio.BaseTransport) -> tuple[StreamReader, StreamWriter]:
    reader = protocol._reader
    return reader, StreamWriter(transport, protocol, None, reader._loop)  # type: ignore[arg-type]
