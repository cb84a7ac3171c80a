"""The reader: asyncio's methods, over a receive buffer.

The order of work for each read: what is there; else what the kernel has, received without waiting; else wait. The first
needs nothing of the loop. The second is bounded between two turns of the loop, so that other tasks run and other
connections are served. A woken task costs more than receiving a few kilobytes, so a reader that waits is only woken
when what it waits for is there.
"""

import asyncio
import copy
import sys
from asyncio import AbstractEventLoop, IncompleteReadError, LimitOverrunError
from collections.abc import Coroutine
from operator import index
from typing import TYPE_CHECKING, Any, Generic

from .._buffer_pool import KIB, BufferPool
from .._checks import digits, natural, shown
from .._native import in_c, native, with_c_methods
from ._receive_buffer import BIG, ReceiveBuffer
from ._receive_now import descriptor_of, drop_what_is_left, receive_now

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Result = TypeVar("Result", memoryview, bytes, default=memoryview)
else:
    from typing import TypeVar

    Result = TypeVar("Result")  # a default takes Python 3.13

LIMIT = 64 * KIB
"""asyncio's default."""

AT_ONCE = 256 * KIB
"""Bytes that are received at a time at most, if nobody waits for more. asyncio's own transports receive as many."""

BUDGET = 1024 * KIB
"""Bytes that a reader receives without waiting between two turns of the loop: some tenths of a millisecond."""

LEAVE_OUT = 32
"""How many times at most a reader that was in vain leaves out to receive without waiting."""

default_buffers = BufferPool(name="streams")
"""What streams receive into that were given no pool."""

_UNKNOWN = -2
"""A descriptor that was not looked for yet."""

if native is not None:
    native.set_reader_sizes(AT_ONCE, BUDGET)
    # So that create_task and asyncio.run take it. (The type checkers do not know that it is an abstract base class.)
    _coroutines: Any = Coroutine
    _coroutines.register(native.Read)


@in_c
class ReaderBase:
    """What reads look at, and what is called on each receive."""

    __slots__ = (
        "_as_bytes",
        "_budget",
        "_descriptor",
        "_eof",
        "_exception",
        "_leave_out",
        "_left_out",
        "_limit",
        "_loop",
        "_paused",
        "_received",
        "_waiter",
    )

    _received: ReceiveBuffer
    _loop: AbstractEventLoop
    _waiter: "asyncio.Future[None] | None"
    _exception: BaseException | None
    _limit: int
    _budget: int
    _descriptor: int
    _leave_out: int
    _left_out: int
    _paused: bool
    _as_bytes: bool
    _eof: bool


@with_c_methods
class StreamReader(ReaderBase, Generic[Result]):
    """What `aiopool.streams` gives in the place of asyncio's reader. For the loop that it was made on.

    `read` and `readexactly` return memoryviews: drop them when you are done with them, and their memory is used again.
    With `results=bytes` they return `bytes`, for the price of one copy. `readuntil`, `readline` and
    `async for line in reader` return `bytes` in any case.

    `buffers` is what to receive into; without it, one pool that all such streams share. `limit` is asyncio's: the
    longest line in bytes, and half of what is received without being waited for. A message asked for by `readexactly`
    may be as big as `max_size` of the buffer pool, if that is more than `limit`.

    In the examples below, `received(data)` is a reader to which a peer has sent `data`, and then no more.

    :raises TypeError: `buffers` is no `BufferPool`, `limit` no integer, or `results` neither of the two types.
    :raises ValueError: `limit` is not more than 0.
    """

    __slots__ = ("__weakref__", "_buffers", "_transport")

    def __init__(
        self,
        buffers: BufferPool | None = None,
        *,
        limit: int = LIMIT,
        results: type[Result] = memoryview,  # type: ignore[assignment]
        loop: AbstractEventLoop | None = None,
    ) -> None:
        if buffers is None:
            buffers = default_buffers
        if not isinstance(buffers, BufferPool):
            raise TypeError(f"buffers must be a BufferPool, not {shown(buffers)}")
        if results not in (memoryview, bytes):
            raise TypeError(f"results must be memoryview or bytes, not {shown(results)}")
        limit = natural("limit", limit)
        if limit == 0:
            raise ValueError("limit must be more than 0 bytes")
        self._received = ReceiveBuffer(buffers)
        self._buffers = buffers
        self._as_bytes = results is bytes
        self._limit = min(limit, sys.maxsize)
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._transport: Any = None
        self._waiter = None
        self._eof = False
        self._exception = None
        self._paused = False
        # For receiving without waiting. The descriptor is looked for when it is needed, for that takes memory: not
        # before a connection has waited some times.
        self._descriptor = _UNKNOWN
        self._budget = BUDGET
        self._leave_out, self._left_out = 4, 0

    def __repr__(self) -> str:
        eof = ", eof" if self._eof else ""
        return f"<aiopool.streams.StreamReader {self.buffered} bytes{eof}>"

    # --- reading ---

    async def read(self, n: int = -1) -> Result:
        """Up to `n` bytes, as soon as there are any; all until the end of the stream if `n` is negative.

        Nothing: the stream has ended. With a positive `n` a view may have less than is there. A cancelled read has
        taken nothing.

        >>> reader = received(b"some bytes")
        >>> bytes(asyncio.run(reader.read(4))), bytes(asyncio.run(reader.read()))
        (b'some', b' bytes')

        :raises OSError: the connection broke, and this is how. So do all other reads.
        """
        if type(n) is not int:
            n = index(n)  # an integer of NumPy's, of 8 or 16 bits maybe, overflows when a position is added to it
        received = self._received
        while n < 0 or not received.unread:
            self._raise_what_broke()
            if self._eof or n == 0:
                break
            # When all is asked for nothing is taken before the end, so that a cancelled read has lost nothing.
            needed = received.unread + 1
            if not self._receive_now(needed):
                await self._wait("read", needed)
        if n < 0:
            return self._take(received.unread)
        return self._take(min(n, received.unread if self._as_bytes else received.in_a_row()))

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
            with memoryview(await self.read(len(target))) as received:
                target[: len(received)] = received
                return len(received)

    async def readexactly(self, n: int) -> Result:
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
        received = self._received
        if type(n) is not int or not 0 <= n <= received.unread:
            n = natural("n", n)
            if n > self._limit and n > self._buffers.max_size:
                raise LimitOverrunError(
                    f"{digits(n)} bytes are more than max_size ({self._buffers.max_size}) and limit ({self._limit}): "
                    "if that is no mistake or attack, pass a BufferPool with a larger max_size as buffers",
                    0,
                )
        while received.unread < n or self._exception is not None:
            self._raise_what_broke()
            if self._eof:
                raise IncompleteReadError(self._take_bytes(received.unread), n)
            if not self._receive_now(n):
                try:
                    await self._wait("readexactly", n)
                except asyncio.CancelledError:
                    self._resume_unless_full()
                    raise
        return self._take(n)

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
        received = self._received
        searched = 0
        while (found := received.find(separators, searched)) is None:
            self._raise_what_broke()
            unread = received.unread
            if unread >= len(separators[0]):
                # All but what may be the beginning of a separator.
                searched = max(0, unread + 1 - len(separators[-1]))
                if searched > self._limit:
                    raise LimitOverrunError("Separator is not found, and chunk exceed the limit", searched)
            if self._eof:
                raise IncompleteReadError(self._take_bytes(unread), None)
            if not self._receive_now(unread + 1):
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
            return await self._readuntil_slow(b"\n")
        except IncompleteReadError as error:
            return error.partial
        except LimitOverrunError as error:
            found = self._received.find([b"\n"], error.consumed)
            is_whole = found == (error.consumed, error.consumed + 1)
            self._take_bytes(error.consumed + 1 if is_whole else self._received.unread)
            raise ValueError(error.args[0]) from None

    def __aiter__(self) -> "StreamReader[Result]":
        return self

    async def __anext__(self) -> bytes:
        line = await self._readline_slow()
        if not line:
            raise StopAsyncIteration
        return line

    # The C extension does what is usual, and comes here for all else.
    _read_slow = read
    _readexactly_slow = readexactly
    _readuntil_slow = readuntil
    _readline_slow = readline
    _next_line_slow = __anext__

    @property
    def buffered(self) -> int:
        """How many bytes can be read without waiting.

        >>> received(b"some").buffered
        4
        """
        return self._received.unread

    @property
    def _buffer(self) -> bytes:
        """A copy of what can be read without waiting, for programs that look for it in asyncio's reader."""
        return self._received.peek()

    def at_eof(self) -> bool:
        """Whether the stream has ended and all of it was read.

        >>> reader = received(b"all"); before = reader.at_eof()
        >>> bytes(asyncio.run(reader.read())), before, reader.at_eof()
        (b'all', False, True)
        """
        return self._eof and not self._received.unread

    def _take(self, n: int) -> Result:
        taken: Any = self._received.take_bytes(n) if self._as_bytes else self._received.take(n)
        if self._paused:
            self._resume_at_limit()
        return taken  # type: ignore[no-any-return]

    def _take_bytes(self, n: int) -> bytes:
        taken = self._received.take_bytes(n)
        if self._paused:
            self._resume_at_limit()
        return taken

    def _raise_what_broke(self) -> None:
        if self._exception is not None:
            raise fresh(self._exception)

    # --- receiving without waiting ---

    def _receive_now(self, needed: int) -> bool:
        """Whether some bytes were received, of the `needed` ones that are to be there in all."""
        if self._left_out < self._leave_out:
            self._left_out += 1
            return False
        if self._budget <= 0 or not self._may_receive():
            return False
        received = self._received
        received.needed = needed
        try:
            nbytes = receive_now(self._descriptor, received, min(self._budget, max(AT_ONCE, needed - received.unread)))
        except OSError as error:
            self.set_exception(error)
            self._transport.abort()
            return True
        if nbytes == 0:
            # In vain, which costs a tenth of being woken: where nothing is there each time, it is seldom tried. If
            # this was the end of the stream, the transport will see it too.
            self._leave_out = min(2 * self._leave_out + 1, LEAVE_OUT)
            self._left_out = 0
            return False
        self._leave_out = self._left_out = 0
        self._budget -= nbytes
        self._have_more()
        return True

    def _may_receive(self) -> bool:
        transport = self._transport
        if transport is None or self._is_waiting():
            return False
        if self._descriptor == _UNKNOWN:
            self._descriptor = descriptor_of(transport)
        if self._descriptor < 0:
            return False
        if self._paused:
            self._resume()
        # Not if somebody else paused or closed it, or has put another protocol in our place: TLS, maybe.
        return transport.is_reading() and getattr(transport.get_protocol(), "reader", None) is self

    # --- waiting ---

    def _is_waiting(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _wait(self, caller: str, needed: int) -> "asyncio.Future[None]":
        """Done when `needed` bytes are there in all, or the stream has ended."""
        if self._is_waiting():
            raise RuntimeError(f"{caller}() called while another coroutine is already waiting for incoming data")
        if self._paused:
            self._resume()
        self._received.hold_little()
        # For as long as nothing is taken, even if nobody waits any more: whoever was cancelled may come back for it.
        self._received.needed = needed
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- for the protocol ---

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        """What is to pause when nobody reads. It is not paused now."""
        if self._paused:
            # What came with the end of a TLS handshake was too much, and it was what lies under TLS that was paused.
            self._resume()
        self._transport = transport
        self._descriptor = -1 if transport.get_extra_info("sslcontext") is not None else _UNKNOWN

    def get_buffer(self, sizehint: int, /) -> memoryview:
        """Where the next bytes are to be written. To be held by the caller until `buffer_updated`."""
        received = self._received
        # TLS says how much it has. To take it in several pieces would be slower, and a pause between them would leave
        # bytes behind that asyncio's reader takes.
        view = received.room(min(sizehint, AT_ONCE) if self._descriptor == -1 else 0)
        if not received.unread and (self._descriptor == -1 or self._budget < BUDGET):
            # It may be in vain: over TLS, where there may be nothing to decrypt yet, or when all was received by us.
            # Until the loop comes to this, a transport has called buffer_updated, or has received nothing.
            self._loop.call_soon(received.release_room)
        return view if len(view) <= AT_ONCE or received.unread < received.needed else view[:AT_ONCE]

    def buffer_updated(self, nbytes: int, /) -> None:
        """So many bytes were received."""
        self._budget = BUDGET
        self._received.received(nbytes)
        self._have_more()

    def _have_more(self) -> None:
        """Wake whoever waits for what there is; else pause the transport when it is too much."""
        received = self._received
        more = received.unread - received.needed
        if more < 0:
            return
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self._waiter = None
            waiter.set_result(None)
            if received.needed >= BIG and not self._paused:
                # What came before the reader has taken this would have to be copied into the next big message.
                self._pause()
        elif not self._paused and more > 2 * self._limit:
            self._pause()

    def feed_eof(self) -> None:
        """There will be no more."""
        self._eof = True
        self._received.release_room()
        self._wake()

    def exception(self) -> BaseException | None:
        """What broke the connection, if anything did."""
        return self._exception

    def set_exception(self, exc: BaseException) -> None:
        """Raised by every read from now on; what was not read yet is gone, as with asyncio's reader."""
        self._received.clear()
        # The frames of its traceback hold what was to be received into.
        self._exception = exc.with_traceback(None)
        self._wake()

    def lose_transport(self) -> None:
        """It is not to be touched any more: its descriptor may soon be another's."""
        self._transport, self._descriptor = None, -1

    def drop_what_is_left(self) -> None:
        """The socket is about to be closed: see that what was written before still reaches the peer."""
        if self._transport is not None:
            drop_what_is_left(self._transport)

    def hand_over(self) -> bytes:
        """All that is unread, for TLS, which begins now. The transport is not resumed: that is what TLS does."""
        self._descriptor, self._paused = -1, False
        return self._take_bytes(self._received.unread)

    def _pause(self) -> None:
        if self._transport is None:
            return
        try:
            self._transport.pause_reading()
        except NotImplementedError:
            self._transport = None
        else:
            self._paused = True

    def _resume_at_limit(self) -> None:
        if self._received.unread <= self._limit:
            self._resume()

    def _resume_unless_full(self) -> None:
        """Nobody takes what the transport was paused for."""
        if self._paused and self._received.unread <= 2 * self._limit:
            self._resume()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None:
            self._transport.resume_reading()


def fresh(error: BaseException) -> BaseException:
    """A copy to raise: what is raised collects a traceback, whose frames hold views for as long as it is kept."""
    try:
        again = copy.copy(error)
    except Exception:
        return error.with_traceback(None)  # one that cannot be copied; its traceback at least does not grow
    again.__cause__ = error.__cause__
    return again


def _sorted(separator: bytes | tuple[bytes, ...]) -> list[bytes]:
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
