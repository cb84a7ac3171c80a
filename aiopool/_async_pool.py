"""`AsyncPool`: for objects that are created, reset or closed with `await`.

It owns a store, as `Pool` does, and adds the code that awaits. So a get that finds an object does not suspend, and
costs little more than a plain one.

A task may be cancelled at every `await`. One rule makes that harmless: while something is awaited for an object, only
the awaiting frame holds it. The pool has already dropped its reference, or has none yet, and takes the object in one
step that does not await. So no half-created or half-reset object is ever idle. No lock is held across an `await`,
because there is none; two tasks that find nothing at the same time both create an object.

The trade-off against a plain pool: there is no private slot. An object that needs an `await` to be created is too
expensive to be out of other loops' reach, and `aclose` has to find them all.
"""

import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from functools import partial
from inspect import isawaitable
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar, overload

from ._checks import callable_or_none, name_or_none, refuse_copy, shown
from ._core import cleanup
from ._core.bound_loops import LoopRecord, current_record
from ._core.observation import Observation, introduce
from ._native import in_c
from ._pool import make_store, may_fill
from .stats import PoolStats, pool_stats

T = TypeVar("T")


@in_c
def defer_reference_counting(_: object, /) -> None:
    """Let all threads use an object without writing to its reference count; it then dies at a garbage collection.

    Only C code can ask for that, and only on free-threaded CPython 3.14 and later; elsewhere this does nothing.
    """


class AsyncPool(Generic[T]):
    """A pool whose objects are created, reset and closed with `await`, on asyncio, uvloop and trio alike.

    `new()` creates an object when a get finds none. Like `reset` and `close`, it may be a plain or an async function:
    what it returns is awaited if it is awaitable.

    `reset(obj)` runs in `put`, before anyone can see the object. If it returns `False`, raises or is cancelled, the
    object is not kept, and what it raised reaches the caller of `put`.

    `close(obj)` is called for each object that is dropped on purpose: by `aclose` and `clear`, over `max_idle`, when
    `reset` failed, and when the block of a `borrow` failed. It is not called for objects that cleanup cycles drop.

    `max_idle`, `idle_timeout`, `loop_bound` and `name` are those of `Pool`. A loop-bound pool also closes the idle
    objects of a loop that shuts down its async generators, as `asyncio.run` and `trio.run` do at their end.

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

    __slots__ = ("__weakref__", "_close", "_closed", "_loop_bound", "_name", "_new", "_plain_put", "_reset", "_store")

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
        self._name = name_or_none(name)
        # Whether put keeps every object, with nothing to check and nothing to await.
        self._plain_put = reset is None and max_idle is None and not loop_bound
        self._store = make_store(self, 0, max_idle, idle_timeout, loop_bound=loop_bound)
        defer_reference_counting(self)
        defer_reference_counting(self._store)
        introduce(self)

    @property
    def _stores(self) -> tuple[Any, ...]:
        return (self._store,)

    # --- get ---

    async def get(self, /) -> T:
        """An idle object, else a new one. Suspends only if `new` does.

        If it is cancelled while `new` runs, the pool is as before: `new` owns the object until it returns. An object
        that `new` has returned reaches the caller.

        >>> async def main(): return await AsyncPool(lambda: 3).get()
        >>> asyncio.run(main())
        3

        :raises Exception: what `new` raises; the pool is as before.
        :raises RuntimeError: the pool was closed by `aclose`; or it is loop-bound, and no loop runs on this thread.
        """
        obj: T | None = None if self._closed else self._store.take()
        if obj is None:
            obj = await self._create()
        if Observation.observer is not None:
            self._tell_got(obj)
        return obj

    def _tell_got(self, obj: T) -> None:
        if Observation.observer is not None:
            try:
                Observation.observer.got(self, obj)
            except BaseException:
                self._store.keep(obj)  # or the caller would lose it
                raise

    async def _create(self) -> T:
        if self._closed:
            raise RuntimeError(f"{self!r} was closed by aclose(); clear() drops idle objects and leaves a pool usable")
        obj = self._new()
        if isawaitable(obj):
            obj = await obj
        # From here to our caller nothing awaits any more.
        self._store.created(obj)
        self._is_closed_in_time()
        created: T = obj
        return created

    # --- put ---

    async def put(self, obj: T, /) -> None:
        """Give `obj` to the next get. `None` is ignored. The caller must not use `obj` any more.

        Suspends only if `reset` or `close` does. If it is cancelled in one of them, the object is dropped: an
        interrupted reset counts as failed. After `aclose` the object is closed, and not kept. A double put goes
        unnoticed, except in debug mode.

        >>> async def main(): await pool.put(bytearray(3)); return len(await pool.get())
        >>> pool = AsyncPool(bytearray); asyncio.run(main())
        3

        :raises Exception: what `reset` or `close` raises; `obj` is then not kept.
        :raises RuntimeError: the pool is loop-bound, and this is not the loop on which `obj` was created. If that loop
            has ended, `obj` is dropped instead, without `close`.
        """
        if obj is None:
            return
        if Observation.observer is not None:
            Observation.observer.putting(self, obj)
        if self._plain_put:
            self._store.keep(obj)
            if self._closed:
                await self._close_idle()  # aclose came in between, from another thread, and may have missed it
        else:
            await self._put(obj)

    async def _put(self, obj: T) -> None:
        if not self._store.admit(obj):
            # No loop is left on which it could be closed.
            self._reject(obj)
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
        elif not self._store.keep(obj):
            self._note_not_kept(obj)
            await self._close_one(obj)
        elif self._closed:
            await self._close_idle()  # as in put

    def _is_closed_in_time(self) -> bool:
        """`False`: the loop is ending, and it is too late to close objects that become idle for it now."""
        return not self._loop_bound or self._close is None or _watch_the_end(self)

    def _reject(self, obj: T) -> None:
        self._store.reject(obj)
        self._note_not_kept(obj)

    def _note_not_kept(self, obj: T) -> None:
        if Observation.observer is not None:
            Observation.observer.not_kept(self, obj)

    async def _discard(self, obj: T, error: BaseException | None = None) -> None:
        """Drop and close `obj`, which was checked out, because of `error`."""
        self._reject(obj)
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
            # A coroutine that is being closed may not await. Closing this one, which never starts, avoids a warning.
            result.close()

    # --- borrow ---

    def borrow(self, /) -> "AsyncBorrow[T]":
        """Get an object for the duration of a block: `async with pool.borrow() as obj:`.

        The object is put back when the block ends normally, and dropped and closed when it raises or is cancelled:
        an object that may be half-changed must not reach the next user.

        >>> async def main():
        ...     async with AsyncPool(bytearray).borrow() as buffer: return len(buffer)
        >>> asyncio.run(main())
        0
        """
        return AsyncBorrow(self)

    # --- filling and emptying ---

    async def fill(self, n: int, /) -> None:
        """Create `n` objects ahead of time, one after another, and put them, here. `reset` does not run.

        >>> async def main(): await pool.fill(2); return pool.stats().idle
        >>> pool = AsyncPool(bytearray); asyncio.run(main())
        2

        :raises TypeError: `n` is no integer.
        :raises ValueError: `n` is negative, or more than `max_idle`, so that some would be rejected at once.
        :raises Exception: what `new` raises; what it created before is kept.
        :raises RuntimeError: as `get`.
        """
        for _ in range(may_fill(self, self._store, n)):
            await self._keep(await self._create())

    async def clear(self, /) -> int:
        """Drop all idle objects, and close them one after another; returns how many.

        For a loop-bound pool, those of the running loop. Objects that are put during the call may be kept.

        If a `close` raises, the others are still closed, and the exception is raised afterwards. If this is cancelled,
        objects that were not closed yet are still idle.

        >>> async def main(): await pool.fill(2); return await pool.clear()
        >>> pool = AsyncPool(bytearray); asyncio.run(main())
        2

        :raises Exception: what `close` raised; an `ExceptionGroup`, if it raised more than once.
        """
        return await self._close_idle()

    async def aclose(self, /) -> None:
        """Close the pool: drop and close all idle objects as `clear` does, and keep nothing from now on.

        Objects that are checked out may still be put, and are closed then. A get raises. Closing twice is harmless; a
        loop-bound pool can be closed on each of its loops.

        >>> async def main(): await pool.fill(2); await pool.aclose(); return pool.stats().idle
        >>> pool = AsyncPool(bytearray); asyncio.run(main())
        0

        :raises Exception: as `clear`.
        """
        # In this order: a put that still sees `_plain_put` checks `_closed` when it is done.
        self._closed = True
        self._plain_put = False
        await self._close_idle()

    async def _close_idle(self, *, ending: bool = False) -> int:
        """As `clear`. `ending`: the loop is ending, so a cancellation only stops the closing of one object."""
        count = 0
        errors: list[BaseException] = []
        # Bounded by the number that are idle now: a busy pool must not keep this going for ever. One at a time, so that
        # whatever ends this, the objects not closed yet are still idle.
        for _ in range(self.stats().idle):
            obj = self._store.take_any()
            if obj is None:
                continue  # another thread took it, or is putting one
            count += 1
            try:
                await self._close_one(obj)
            except GeneratorExit:
                raise
            except BaseException as error:
                errors.append(error)
                if not (ending or isinstance(error, Exception)):
                    break
        cleanup.emptied([self._store])
        _raise(errors)
        return count

    # --- looking at it ---

    def stats(self, /) -> PoolStats:
        """What the pool did since it was created, and what is in it now. Safe from any thread; never waits.

        >>> AsyncPool(bytearray).stats().idle
        0
        """
        return pool_stats(self._name, self._store)

    def __repr__(self) -> str:
        name = hex(id(self)) if self._name is None else repr(self._name)
        return f"<aiopool.AsyncPool {name}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Copying and pickling both end here."""
        refuse_copy(self, "objects")


class AsyncBorrow(Generic[T]):
    """An object from an async pool for the duration of one block. Created by `AsyncPool.borrow`."""

    __slots__ = ("_held", "_pool")

    def __init__(self, pool: AsyncPool[T]) -> None:
        self._pool = pool
        # `None` before the block, then a list of at most one object, because pop takes it in one step: even a shared
        # borrow puts it back only once.
        self._held: list[T] | None = None

    async def __aenter__(self) -> T:
        if self._held is not None:
            raise RuntimeError("this borrow was entered already: call borrow() for each block")
        # Set before the object is there. Otherwise two tasks that share a borrow could both enter while they wait.
        held: list[T] = []
        self._held = held
        pool = self._pool
        try:
            # The usual case of pool.get(), without a coroutine of its own.
            obj = None if pool._closed else pool._store.take()
            if obj is None:
                obj = await pool._create()
            if Observation.observer is not None:
                pool._tell_got(obj)
        except BaseException:
            self._held = None
            raise
        held.append(obj)
        return obj

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        held = self._held
        if not held:
            return  # it was never entered, or is just being entered
        try:
            obj = held.pop()
        except IndexError:
            return  # another task or thread left just now
        self._held = None
        pool = self._pool
        if exc_type is not None:
            if obj is not None:
                await pool._discard(obj, exc)
        elif pool._plain_put and Observation.observer is None and obj is not None:
            pool._store.keep(obj)
            if pool._closed:
                await pool._close_idle()  # as in put
        else:
            await pool.put(obj)


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
    """Have what `pool` keeps for the running loop closed while that can be awaited. `False`: it is too late."""
    record = current_record()
    if record is None or record.mark.ended:
        return False
    if record.guard is None:
        # Where the loop would end the record first, the guard keeps it until it is done.
        tie = record.tie() if record.tie is not None and record.loop.ends_async_generators_last else None
        record.guard = _guard(record, tie)
        # To its yield; there it stays until the loop shuts its async generators down, and throws it out of there.
        try:
            record.guard.asend(None).send(None)
        except StopIteration:
            pass
    key = id(pool)
    if key not in record.closers:
        record.closers[key] = weakref.ref(pool, partial(record.closers.pop, key))
    return not record.closing


async def _guard(record: LoopRecord, tie: object) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        record.closing = True
        errors: list[BaseException] = []
        for ref in list(record.closers.values()):
            pool = ref()
            if pool is not None:
                try:
                    await pool._close_idle(ending=True)
                except BaseException as error:
                    errors.append(error)
        _raise(errors)
