"""`AsyncPool`: for objects that are made, reset or closed with `await`.

Inside is a `Pool`, which keeps what is idle; around it stands what awaits. So a get that finds something does not
suspend, and costs little more than the plain one.

At every `await` a task may be cancelled. What makes each of them harmless is one rule: while something is awaited for
an object, only the frame that awaits has it. The pool has let go of it already, or does not know it yet, and takes it
in one step that does not await. So nothing half-made or half-reset is ever idle. No lock is held across an `await`,
because there is none; two tasks that find nothing at the same time both make an object.

The trade-off against a plain pool: no object is private to a processor. What takes an `await` to make is too expensive
to lie where no other loop can reach it, and `aclose` has to find it all.
"""

import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from inspect import isawaitable
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar, overload

from . import _collector
from ._checks import callable_or_none, refuse_copy, shown
from ._homes import Departure, Home, current_home
from ._pool import Pool
from ._shard import Shard
from .stats import PoolStats

T = TypeVar("T")


class AsyncPool(Generic[T]):
    """A pool whose objects are made, reset and closed with `await`, on asyncio, uvloop and trio alike.

    `new()` makes an object when a get finds none. Like `reset` and `close`, it may be a plain function or an async one:
    what it returns is awaited if it can be.

    `reset(obj)` runs in `put`, before anyone can see the object. If it returns `False`, raises or is cancelled, the
    object is not kept, and what it raised reaches the caller of `put`.

    `close(obj)` is called for each object that is dropped on purpose: by `aclose` and `clear`, over `max_idle`, when
    `reset` failed, and when the block of a `borrow` failed. It is not called for what cleanup cycles drop.

    `max_idle`, `idle_timeout`, `loop_bound` and `name` are those of `Pool`. A loop-bound pool also closes what is idle
    for a loop when that shuts its async generators down, as `asyncio.run` and `trio.run` do at their end.

    Safe from any loop of any thread.

    >>> async def connect(): return bytearray(2)
    >>> async def main():
    ...     pool = AsyncPool(connect)
    ...     async with pool.borrow() as connection: return len(connection)
    >>> asyncio.run(main())
    2

    :raises TypeError: `new`, `reset` or `close` is not callable, `max_idle` is no integer, or `idle_timeout` no number.
    :raises ValueError: `max_idle` is negative, or `idle_timeout` is not positive.
    """

    __slots__ = ("__weakref__", "_close", "_closed", "_idle", "_keeps_all", "_loop_bound", "_new", "_reset")

    @overload
    def __init__(
        self,
        new: Callable[[], Awaitable[T]],
        *,
        reset: Callable[[T], object] | None = None,
        close: Callable[[T], object] | None = None,
        max_idle: int | None = None,
        idle_timeout: float | None = 60.0,
        loop_bound: bool = False,
        name: str | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        new: Callable[[], T],
        *,
        reset: Callable[[T], object] | None = None,
        close: Callable[[T], object] | None = None,
        max_idle: int | None = None,
        idle_timeout: float | None = 60.0,
        loop_bound: bool = False,
        name: str | None = None,
    ) -> None: ...

    def __init__(
        self,
        new: Callable[[], Any],
        *,
        reset: Callable[[Any], object] | None = None,
        close: Callable[[Any], object] | None = None,
        max_idle: int | None = None,
        idle_timeout: float | None = 60.0,
        loop_bound: bool = False,
        name: str | None = None,
    ) -> None:
        if not callable(new):
            raise TypeError(f"new must be callable, not {shown(new)}")
        self._new = new
        self._reset = callable_or_none("reset", reset)
        self._close = callable_or_none("close", close)
        self._loop_bound = loop_bound
        self._closed = False
        # Whether put keeps whatever comes, with nothing to await.
        self._keeps_all = reset is None and max_idle is None and not loop_bound
        self._idle: _Idle[Any] = _Idle(max_idle=max_idle, idle_timeout=idle_timeout, loop_bound=loop_bound, name=name)
        _collector.register(self)

    # --- get ---

    async def get(self) -> T:
        """An idle object, else a new one. Suspends only if `new` does.

        Cancelled while `new` is at work, it leaves the pool as it was: an object that is not finished is the business
        of `new`. One that `new` has returned reaches the caller.

        >>> async def main(): return await AsyncPool(lambda: 3).get()
        >>> asyncio.run(main())
        3

        :raises Exception: what `new` raises; the pool is as before.
        :raises RuntimeError: the pool was closed by `aclose`; or it is loop-bound, and no loop runs on this thread.
        """
        if self._closed:
            self._refuse_to_make()
        obj: T | None = self._idle.get()
        if obj is None:
            return await self._make()
        return obj

    async def _make(self) -> T:
        obj = self._new()
        if isawaitable(obj):
            obj = await obj
        # From here to our caller nothing awaits any more.
        self._idle.adopt(obj)
        self._is_closed_in_time()
        made: T = obj
        return made

    def _refuse_to_make(self) -> NoReturn:
        raise RuntimeError(f"{self!r} was closed by aclose(): clear() drops what is idle and leaves a pool in use")

    # --- put ---

    async def put(self, obj: T) -> None:
        """Give `obj` to whoever gets next. `None` is ignored. The caller must not use `obj` any more.

        Suspends only if `reset` or `close` does. Cancelled in one of them, it drops the object: a reset that was
        broken off is a failed one. After `aclose` the object is closed, and not kept. A double put goes unnoticed.

        >>> async def main(): await pool.put(bytearray(3)); return len(await pool.get())
        >>> pool = AsyncPool(bytearray); asyncio.run(main())
        3

        :raises Exception: what `reset` or `close` raises; `obj` is then not kept.
        :raises RuntimeError: the pool is loop-bound, and this is not the loop on which `obj` was made. If that has
            ended, `obj` is dropped instead, without `close`.
        """
        if self._keeps_all:
            self._idle.put(obj)
            if self._closed:
                await self._close_idle()  # aclose came in between, from another thread, and may have missed it
        elif obj is not None:
            await self._put(obj)

    async def _put(self, obj: T) -> None:
        if not self._idle.admits(obj):
            # No loop is left on which it could be closed.
            self._idle._abandon(obj)
            return
        if self._reset is not None and not self._closed:
            try:
                result = self._reset(obj)
                if isawaitable(result):
                    result = await result
            except BaseException as error:
                await self._discard(obj, error)
                raise
            if result is False:
                await self._discard(obj)
                return
        await self._keep(obj)

    async def _keep(self, obj: T) -> None:
        if self._closed or not self._is_closed_in_time():
            await self._discard(obj)
        elif not self._idle.offer(obj):
            await self._close_one(obj)
        elif self._closed:
            await self._close_idle()  # as in put

    def _is_closed_in_time(self) -> bool:
        """`False`: what is idle now for a loop that ends would be dropped, for it is past the moment to close it."""
        return not self._loop_bound or self._close is None or _watch_the_end(self)

    async def _discard(self, obj: T, error: BaseException | None = None) -> None:
        """`obj` was lent, and is not to be kept, because of `error`."""
        self._idle._abandon(obj)
        await self._close_one(obj, error)

    async def _close_one(self, obj: T, error: BaseException | None = None) -> None:
        if self._close is None:
            return
        result = self._close(obj)
        if not isawaitable(result):
            return
        if not isinstance(error, GeneratorExit):
            await result
        elif isinstance(result, Coroutine):
            # A coroutine that is closed may not await any more. This one never starts; closed itself, it doesn't warn.
            result.close()

    # --- borrow ---

    def borrow(self) -> "AsyncBorrow[T]":
        """Get for the time of a block: `async with pool.borrow() as obj:`.

        The object is put back when the block ends well, and dropped and closed when it raises or is cancelled:
        something half-done must not reach the next one.

        >>> async def main():
        ...     async with AsyncPool(bytearray).borrow() as buffer: return len(buffer)
        >>> asyncio.run(main())
        0
        """
        return AsyncBorrow(self)

    # --- filling and emptying ---

    async def fill(self, n: int) -> None:
        """Make `n` objects ahead of time, one after another, and put them, here. `reset` does not run.

        >>> async def main(): await pool.fill(2); return pool.stats().idle
        >>> pool = AsyncPool(bytearray); asyncio.run(main())
        2

        :raises TypeError: `n` is no integer.
        :raises ValueError: `n` is negative, or more than `max_idle`, so that some would be dropped at once.
        :raises Exception: what `new` raises; what it made before is kept.
        :raises RuntimeError: as `get`.
        """
        for _ in range(self._idle._may_fill(n)):
            if self._closed:
                self._refuse_to_make()
            await self._keep(await self._make())

    async def clear(self) -> int:
        """Drop all idle objects, and close them one after another; how many there were.

        Of a loop-bound pool, those of the running loop.

        If a `close` fails or is cancelled, the others are closed all the same, and it raises afterwards.

        >>> async def main(): await pool.fill(2); return await pool.clear()
        >>> pool = AsyncPool(bytearray); asyncio.run(main())
        2

        :raises Exception: what `close` raised; an `ExceptionGroup`, if it raised more than once.
        """
        return await self._close_idle()

    async def aclose(self) -> None:
        """Close the pool: drop and close all idle objects as `clear` does, and keep nothing from now on.

        What is lent may still be put, and is closed then. A get raises. Closing twice does no harm; a loop-bound pool
        can be closed on each of its loops.

        >>> async def main(): await pool.fill(2); await pool.aclose(); return pool.stats().idle
        >>> pool = AsyncPool(bytearray); asyncio.run(main())
        0

        :raises Exception: as `clear`.
        """
        # In this order: a put that still sees the first as it was looks at the second when it is done.
        self._closed = True
        self._keeps_all = False
        await self._close_idle()

    async def _close_idle(self) -> int:
        count = 0
        errors: list[BaseException] = []
        # One at a time, so that whatever ends this, what was not closed yet is still idle.
        while (obj := self._idle.take_any()) is not None:
            count += 1
            try:
                await self._close_one(obj)
            except GeneratorExit:
                raise
            except BaseException as error:
                errors.append(error)
        _raise(errors)
        return count

    # --- for the collector ---

    def rotate(self) -> "list[Shard | Departure]":
        """One cleanup cycle's part."""
        return self._idle.rotate()

    def idle_due(self) -> float:
        """When idle objects call for a cycle, in seconds of time.monotonic(); infinity: nothing is idle."""
        return self._idle.idle_due()

    def renew_locks(self) -> None:
        """In the child of a fork."""
        self._idle.renew_locks()

    def set_aside(self) -> Callable[[], list[_collector.Doomed]]:
        """As that of `Pool`."""
        return self._idle.set_aside()

    # --- looking at it ---

    def stats(self) -> PoolStats:
        """What the pool did since it was made, and what lies in it. Safe from any thread; waits for nobody.

        >>> AsyncPool(bytearray).stats().idle
        0
        """
        return self._idle.stats()

    def __repr__(self) -> str:
        return repr(self._idle)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Copying and pickling both end here."""
        refuse_copy(self, "objects")


class AsyncBorrow(Generic[T]):
    """An object from an async pool for the time of one block. Made by `AsyncPool.borrow`."""

    __slots__ = ("_entered", "_held", "_pool")

    def __init__(self, pool: AsyncPool[T]) -> None:
        self._pool = pool
        # Set before the object is there, or two tasks that share a borrow could both enter while they wait for theirs.
        self._entered = False
        # At most one object. A list, for pop takes it in one step: who shares a borrow gives back once all the same.
        self._held: list[T] = []

    async def __aenter__(self) -> T:
        if self._entered:
            raise RuntimeError("this borrow was entered already: call borrow() for each block")
        self._entered = True
        try:
            obj = await self._pool.get()
        except BaseException:
            self._entered = False
            raise
        self._held.append(obj)
        return obj

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            obj = self._held.pop()
        except IndexError:
            return  # it was never entered, or left already
        self._entered = False
        if exc_type is None:
            await self._pool.put(obj)
        elif obj is not None:
            await self._pool._discard(obj, exc)


class _Idle(Pool[T]):
    """What an `AsyncPool` keeps."""

    __slots__ = ()

    # No object is private: see above.
    _SLOTS = 0

    def _register(self) -> None:
        """The async pool is registered, and speaks for this one."""

    def __repr__(self) -> str:
        return super().__repr__().replace("Pool", "AsyncPool", 1)

    def admits(self, obj: T) -> bool:
        """Raises where a put of `obj` is an error. `False`: its loop has ended."""
        return self._origins is None or self._admits(self._origins, obj, self._home())

    def offer(self, obj: T) -> bool:
        """Keep `obj`. `False`: it is one too many."""
        if self._keeps_all:
            self.put(obj)
            return True
        self._note_back(obj)
        return self._keep(obj)

    def adopt(self, obj: T) -> None:
        """Count `obj`, which was made outside and is lent from now on."""
        key, shard = self._pin()
        shard.tally.made += 1
        if self._origins is not None:
            self._origins.lend(obj, key)
        self._note_lent(obj)

    def take_any(self) -> T | None:
        """An idle object, whoever put it; of a loop-bound pool, one of the running loop. No get, so not counted."""
        home = None if self._origins is None else current_home()
        for shards in (self._primary, self._victim):
            for key, shard in list(shards.items()):
                if self._origins is None or key is home:
                    obj: T | None = _take_from(shard)
                    if obj is not None:
                        return obj
        return None


def _take_from(shard: Shard) -> Any:
    # Who is in our way is done in a moment, and we must not take its lock for a sign that there is nothing.
    while len(shard):
        obj = shard.take_oldest()
        if obj is None:
            # Where a put found the lock busy. Anybody may take it, in a shard without private slots.
            obj = shard.take_private()
        if obj is not None:
            return obj
    return None


def _raise(errors: list[BaseException]) -> None:
    """Raise what is in `errors`, if anything, so that a cancellation is still seen as one."""
    plain = [error for error in errors if isinstance(error, Exception)]
    others = [error for error in errors if not isinstance(error, Exception)]
    # Else the frames that hold the list, and all they hold, would wait for the garbage collector.
    errors.clear()
    if len(plain) > 1:
        plain = [ExceptionGroup("closing idle objects failed", plain)]
    try:
        if others:
            raise others[0] from (plain[0] if plain else others[0].__cause__)
        if plain:
            raise plain[0]
    finally:
        plain.clear()
        others.clear()


# --- closing in time what is bound to a loop ---


def _watch_the_end(pool: AsyncPool[Any]) -> bool:
    """See to it that what `pool` keeps for the running loop is closed while that can be awaited. `False`: too late."""
    home = current_home()
    if home is None or home.ended:
        return False
    if home.guard is None:
        # Where the loop would end the home first, the guard keeps it until it is done.
        tie = home.tie() if home.tie is not None and home.loop.ends_async_generators_last else None
        home.guard = _guard(home, tie)
        # To its yield; there it stays until the loop shuts its async generators down, and throws it out of there.
        try:
            home.guard.asend(None).send(None)
        except StopIteration:
            pass
    home.closers[weakref.ref(pool, home.closers.__delitem__)] = None
    return not home.closing


async def _guard(home: Home, tie: object) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        home.closing = True
        errors: list[BaseException] = []
        for ref in list(home.closers):
            pool = ref()
            if pool is not None:
                try:
                    await pool._close_idle()
                except BaseException as error:
                    errors.append(error)
        _raise(errors)
