"""The reader: asyncio's methods, over a receive buffer.

Each read first uses the bytes that were already received; then it receives from the kernel without waiting; and only
then does it wait. The first step does not need the loop. The second is limited for each iteration of the loop, so that
other tasks run and other connections are served. Waking a task costs more than receiving a few kilobytes, so a waiting
reader is woken only when all the bytes that it waits for have arrived.
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

    Result = TypeVar("Result")  # a default needs Python 3.13

LIMIT = 64 * KIB
"""asyncio's default."""

AT_ONCE = 256 * KIB
"""The most bytes received at a time, unless a read waits for more. The same as in asyncio's own transports."""

BUDGET = 1024 * KIB
"""The most bytes that a reader receives without waiting in one iteration of the loop. Takes 0.2 to 0.4 ms."""

LEAVE_OUT = 32
"""The most non-blocking receives that are skipped after one that found nothing."""

default_buffers = BufferPool(name="streams")
"""The pool that streams receive into by default."""

_UNKNOWN = -2
"""Means that the descriptor was not looked up yet."""

if native is not None:
    native.set_reader_sizes(AT_ONCE, BUDGET)
    # So that create_task and asyncio.run accept it. (Type checkers do not know that it is an abstract base class.)
    _coroutines: Any = Coroutine
    _coroutines.register(native.Read)


@in_c
class ReaderBase:
    """The data that reads use and each receive updates."""

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
    """The reader of a stream, instead of asyncio's. Use it only on the loop on which it was created.

    `read` and `readexactly` return memoryviews: drop them when you no longer need them, so that their memory can be
    reused. With `results=bytes` they return `bytes`, at the price of one copy. `readuntil`, `readline` and
    `async for line in reader` always return `bytes`.

    `buffers` is the pool to receive into; by default a pool that all streams share. `limit` has the same meaning as in
    asyncio: the longest line in bytes, and half of the bytes that are received ahead of reads. `readexactly` also reads
    larger messages, up to `max_size` of the buffer pool.

    In the examples below, `received(data)` is a reader whose peer has sent `data` and then the end of the stream.

    :raises TypeError: `buffers` is not a `BufferPool`, `limit` not an integer, or `results` neither of the two types.
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
        # For receiving without waiting. The descriptor is looked up only after a connection has waited a few times,
        # because the lookup needs memory.
        self._descriptor = _UNKNOWN
        self._budget = BUDGET
        self._leave_out, self._left_out = 4, 0

    def __repr__(self) -> str:
        eof = ", eof" if self._eof else ""
        return f"<aiopool.streams.StreamReader {self.buffered} bytes{eof}>"

    # --- reading ---

    async def read(self, n: int = -1) -> Result:
        """Read up to `n` bytes, as soon as there are any; if `n` is negative, read until the end of the stream.

        An empty result means that the stream has ended. A view may have fewer bytes than were received, because it does
        not span chunks. A cancelled read takes no bytes.

        >>> reader = received(b"some bytes")
        >>> bytes(asyncio.run(reader.read(4))), bytes(asyncio.run(reader.read()))
        (b'some', b' bytes')

        :raises OSError: the connection broke. All other reads raise this too.
        """
        if type(n) is not int:
            n = index(n)  # because a NumPy integer of 8 or 16 bits would overflow when an offset is added to it
        received = self._received
        while n < 0 or not received.unread:
            self._raise_what_broke()
            if self._eof or n == 0:
                break
            # When reading until the end, nothing is taken before, so that a cancelled read loses nothing.
            needed = received.unread + 1
            if not self._receive_now(needed):
                await self._wait("read", needed)
        if n < 0:
            return self._take(received.unread)
        return self._take(min(n, received.unread if self._as_bytes else received.in_a_row()))

    async def readinto(self, buffer: Any) -> int:
        r"""Read into a writable buffer, as soon as there are bytes, and return how many. 0: the stream has ended.

        >>> target = bytearray(10)
        >>> asyncio.run(received(b"some").readinto(target)), target[:5]
        (4, bytearray(b'some\x00'))

        :raises TypeError: `buffer` is not writable, or not contiguous.
        """
        with memoryview(buffer) as view, view.cast("B") as target:
            if target.readonly:
                raise TypeError(f"readinto() takes a writable buffer, not {shown(buffer)}")
            with memoryview(await self.read(len(target))) as received:
                target[: len(received)] = received
                return len(received)

    async def readexactly(self, n: int) -> Result:
        """Read exactly `n` bytes, in one piece. The kernel writes large messages directly into the result.

        >>> reader = received(bytes([0, 5]) + b"hello")
        >>> length = int.from_bytes(asyncio.run(reader.readexactly(2)), "big")
        >>> bytes(asyncio.run(reader.readexactly(length)))
        b'hello'

        :raises IncompleteReadError: the stream ended before; its `partial` has the `bytes` that arrived.
        :raises LimitOverrunError: `n` is more than `max_size` of the buffer pool and more than `limit`. Nothing was
            allocated or read, because the length may come from an untrusted peer.
        :raises ValueError: `n` is negative.
        """
        received = self._received
        if type(n) is not int or not 0 <= n <= received.unread:
            n = natural("n", n)
            if n > self._limit and n > self._buffers.max_size:
                raise LimitOverrunError(
                    f"{digits(n)} bytes are more than max_size ({self._buffers.max_size}) and limit ({self._limit}): "
                    "if this is not a mistake or an attack, pass a BufferPool with a larger max_size as buffers",
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
        """Read up to and including the first `separator`; of several, the one that ends first.

        >>> reader = received(b"key=value;")
        >>> asyncio.run(reader.readuntil(b"=")), asyncio.run(reader.readuntil((b"|", b";")))
        (b'key=', b'value;')

        :raises IncompleteReadError: the stream ended before that; `partial` has the `bytes` that arrived.
        :raises LimitOverrunError: there is no separator in the first `limit` bytes, which can still be read otherwise.
        :raises TypeError: a separator is not `bytes`.
        :raises ValueError: no separator was given, or one is empty.
        """
        separators = _sorted(separator)
        received = self._received
        searched = 0
        while (found := received.find(separators, searched)) is None:
            self._raise_what_broke()
            unread = received.unread
            if unread >= len(separators[0]):
                # Skip all bytes except those that may be the beginning of a separator.
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
        r"""Read a line with its newline, which only the last line may lack. Empty if the stream has ended.

        `async for line in reader` reads all lines.

        >>> reader = received(b"first\nlast")
        >>> [asyncio.run(reader.readline()) for _ in range(3)]
        [b'first\n', b'last', b'']

        :raises ValueError: the line is longer than `limit`. It is dropped, or as much of it as was received.
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

    # The C extension handles the usual cases, and calls these methods for all others.
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
        """A copy of the bytes that can be read without waiting, for programs that use this attribute in asyncio."""
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
        """Receive without waiting, if possible, when `needed` bytes are needed in all. Returns whether any arrived."""
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
            # A receive that finds nothing costs a tenth of a wake-up. If it finds nothing each time, it is rarely
            # tried. If this was the end of the stream, the transport will see it too.
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
        # Not if other code has paused or closed the transport, or replaced our protocol, for example by TLS.
        return transport.is_reading() and getattr(transport.get_protocol(), "reader", None) is self

    # --- waiting ---

    def _is_waiting(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _wait(self, caller: str, needed: int) -> "asyncio.Future[None]":
        """Return a future that is done when `needed` bytes have been received, or the stream has ended."""
        if self._is_waiting():
            raise RuntimeError(f"{caller}() called while another coroutine is already waiting for incoming data")
        if self._paused:
            self._resume()
        self._received.hold_little()
        # Kept until bytes are taken, even if the wait is cancelled, because the caller may read the same bytes again.
        self._received.needed = needed
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- for the protocol ---

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        """Set the transport to pause when too many bytes are unread. It is not paused now."""
        if self._paused:
            # Too many bytes arrived with the end of a TLS handshake, and the transport below TLS was paused.
            self._resume()
        self._transport = transport
        self._descriptor = -1 if transport.get_extra_info("sslcontext") is not None else _UNKNOWN

    def get_buffer(self, sizehint: int, /) -> memoryview:
        """Return the buffer for the next bytes. The caller holds it until it calls `buffer_updated`."""
        received = self._received
        # TLS passes the number of bytes it has. Taking them in several pieces would be slower, and a pause in between
        # would leave bytes behind that asyncio's reader gets.
        view = received.room(min(sizehint, AT_ONCE) if self._descriptor == -1 else 0)
        if not received.unread and (self._descriptor == -1 or self._budget < BUDGET):
            # Possibly nothing is written to it: over TLS, if there is nothing to decrypt yet, or because we have
            # received everything ourselves. When this callback runs, the transport has either called buffer_updated or
            # received nothing.
            self._loop.call_soon(received.release_room)
        return view if len(view) <= AT_ONCE or received.unread < received.needed else view[:AT_ONCE]

    def buffer_updated(self, nbytes: int, /) -> None:
        """Note that `nbytes` were written to the buffer."""
        self._budget = BUDGET
        self._received.received(nbytes)
        self._have_more()

    def _have_more(self) -> None:
        """Wake the read that has what it waits for; else pause the transport if too much has been received."""
        received = self._received
        more = received.unread - received.needed
        if more < 0:
            return
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self._waiter = None
            waiter.set_result(None)
            if received.needed >= BIG and not self._paused:
                # Bytes that arrive before this message is taken would have to be copied into the next large message.
                self._pause()
        elif not self._paused and more > 2 * self._limit:
            self._pause()

    def feed_eof(self) -> None:
        """Note that the stream has ended."""
        self._eof = True
        self._received.release_room()
        self._wake()

    def exception(self) -> BaseException | None:
        """The exception that broke the connection, or `None`."""
        return self._exception

    def set_exception(self, exc: BaseException) -> None:
        """Make every read raise `exc` from now on. Unread bytes are dropped, as in asyncio's reader."""
        self._received.clear()
        # Without its traceback, whose frames hold the buffer.
        self._exception = exc.with_traceback(None)
        self._wake()

    def lose_transport(self) -> None:
        """Stop using the transport, because another file may soon have the same descriptor."""
        self._transport, self._descriptor = None, -1

    def drop_what_is_left(self) -> None:
        """Make sure that bytes that were written still reach the peer, although the socket is about to be closed."""
        if self._transport is not None:
            drop_what_is_left(self._transport)

    def hand_over(self) -> bytes:
        """Take all unread bytes, for TLS, which begins now. Does not resume the transport, because TLS does that."""
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
        """Resume the transport, if it was paused for a read that was cancelled."""
        if self._paused and self._received.unread <= 2 * self._limit:
            self._resume()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None:
            self._transport.resume_reading()


def fresh(error: BaseException) -> BaseException:
    """A copy of `error` to raise. A traceback is added to it, whose frames would keep views alive in the original."""
    try:
        again = copy.copy(error)
    except Exception:
        return error.with_traceback(None)  # it cannot be copied, but at least its traceback does not grow
    again.__cause__ = error.__cause__
    return again


def _sorted(separator: bytes | tuple[bytes, ...]) -> list[bytes]:
    """Check the separators, and return them as a list, the shortest first."""
    given = separator if isinstance(separator, tuple) else (separator,)
    try:
        # As `bytes`, because other objects, such as a bytearray, may be mutable and unhashable.
        separators = [each if type(each) is bytes else memoryview(each).tobytes() for each in given]
    except TypeError:
        raise TypeError(f"readuntil() takes bytes or a tuple of bytes, not {shown(separator)}") from None
    separators.sort(key=len)
    if not separators or not separators[0]:
        raise ValueError(f"readuntil() needs separators of at least one byte, not {shown(separator)}")
    return separators
