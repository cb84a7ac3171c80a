"""`AsyncPool`: for objects that are created, reset or closed with `await`.

It owns a store, as `Pool` does, and adds the code that awaits. A get that finds an object does not suspend, and costs
little more than that of a `Pool`.

A task may be cancelled at every `await`. One rule makes this harmless: while `new`, `reset` or `close` is awaited for
an object, only the awaiting frame holds the object. The pool has already dropped its reference, or has none yet, and
takes the object in one step without an `await`. So no half-created or half-reset object is ever idle. There is no lock,
so none is held across an `await`; two tasks that find nothing at the same time both create an object.

The trade-off compared to `Pool`: there is no private slot. An object that needs an `await` to be created is too
expensive to be out of reach of other loops, and `aclose` has to find all idle objects.
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
    """Let all threads use an object without writing to its reference count. It is then freed by a garbage collection.

    Only C code can request this, and only on free-threaded CPython 3.14 and later; elsewhere this does nothing.
    """


class AsyncPool(Generic[T]):
    """A pool whose objects are created, reset and closed with `await`, on asyncio, uvloop and trio alike.

    `new()` creates an object when a get finds none. `new`, `reset` and `close` may be plain or async functions: if the
    result is awaitable, it is awaited.

    `reset(obj)` runs in `put`, before any other code can get the object. If it returns `False`, raises or is cancelled,
    the object is not kept; an exception reaches the caller of `put`.

    `close(obj)` is called for each object that is dropped on purpose: by `aclose` and `clear`, beyond `max_idle`, when
    `reset` failed, and when the block of a `borrow` failed. It is not called for objects that cleanup cycles drop.

    `max_idle`, `idle_timeout`, `loop_bound` and `name` are as for `Pool`. A loop-bound pool also closes the idle
    objects of a loop that shuts down its async generators, as `asyncio.run` and `trio.run` do at their end.

    Safe to use from any loop on any thread.

    >>> async def connect(): return bytearray(2)
    >>> async def main():
    ...     pool = AsyncPool(connect)
    ...     async with pool.borrow() as connection: return len(connection)
    >>> asyncio.run(main())
    2

    :raises TypeError: `new`, `reset` or `close` is not callable, `max_idle` is not an integer, `idle_timeout` not a
        number, or `name` not a string.
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
        # Whether put just keeps every object, with nothing to check or await.
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
        """Return an idle object, or else a new one. Suspends only if `new` does.

        If it is cancelled while `new` runs, the pool is unchanged: `new` owns the object until it returns. An object
        that `new` has returned always reaches the caller.

        >>> async def main(): return await AsyncPool(lambda: 3).get()
        >>> asyncio.run(main())
        3

        :raises Exception: whatever `new` raises; the pool is unchanged.
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
                self._store.keep(obj)  # otherwise it would be lost
                raise

    async def _create(self) -> T:
        if self._closed:
            raise RuntimeError(f"{self!r} was closed by aclose(); clear() drops idle objects and leaves a pool usable")
        obj = self._new()
        if isawaitable(obj):
            obj = await obj
        # There is no await between here and the caller, so a cancellation cannot lose the object.
        self._store.created(obj)
        self._is_closed_in_time()
        created: T = obj
        return created

    # --- put ---

    async def put(self, obj: T, /) -> None:
        """Return `obj` to the pool, for a later get. `None` is ignored. Do not use `obj` afterwards.

        Suspends only if `reset` or `close` does. If it is cancelled in one of them, the object is dropped, because an
        interrupted `reset` counts as failed. After `aclose`, the object is closed and not kept. A double put is only
        detected in debug mode.

        >>> async def main(): await pool.put(bytearray(3)); return len(await pool.get())
        >>> pool = AsyncPool(bytearray); asyncio.run(main())
        3

        :raises Exception: whatever `reset` or `close` raises; `obj` is then not kept.
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
                await self._close_idle()  # another thread called aclose meanwhile, which may have missed this object
        else:
            await self._put(obj)

    async def _put(self, obj: T) -> None:
        if not self._store.admit(obj):
            # Its loop has ended, so it cannot be closed any more.
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
        """`False` if the loop is ending, and it is too late to close objects that become idle now."""
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
            # A coroutine that is being closed may not await. Closing this one before it starts avoids a warning.
            result.close()

    # --- borrow ---

    def borrow(self, /) -> "AsyncBorrow[T]":
        """Get an object for the duration of a block: `async with pool.borrow() as obj:`.

        The object is put back when the block ends normally. It is dropped and closed if the block raises or is
        cancelled, because an object that may be in an inconsistent state must not be reused.

        >>> async def main():
        ...     async with AsyncPool(bytearray).borrow() as buffer: return len(buffer)
        >>> asyncio.run(main())
        0
        """
        return AsyncBorrow(self)

    # --- filling and emptying ---

    async def fill(self, n: int, /) -> None:
        """Create `n` objects in advance, one after another, and put them on this thread. `reset` does not run.

        >>> async def main(): await pool.fill(2); return pool.stats().idle
        >>> pool = AsyncPool(bytearray); asyncio.run(main())
        2

        :raises TypeError: `n` is not an integer.
        :raises ValueError: `n` is negative, or more than `max_idle`, so that some would be rejected at once.
        :raises Exception: whatever `new` raises; the objects created before are kept.
        :raises RuntimeError: as for `get`.
        """
        for _ in range(may_fill(self, self._store, n)):
            await self._keep(await self._create())

    async def clear(self, /) -> int:
        """Drop all idle objects, close them one after another, and return how many there were.

        In a loop-bound pool this affects only the running loop's objects. Objects put during the call may be kept.

        If a `close` raises, the other objects are still closed, and the exception is raised afterwards. If the call is
        cancelled, objects that were not closed yet stay idle.

        >>> async def main(): await pool.fill(2); return await pool.clear()
        >>> pool = AsyncPool(bytearray); asyncio.run(main())
        2

        :raises Exception: whatever `close` raised; an `ExceptionGroup` if it raised more than once.
        """
        return await self._close_idle()

    async def aclose(self, /) -> None:
        """Close the pool: drop and close all idle objects as `clear` does, and keep none from now on.

        Objects that are checked out may still be put, which closes them. A get raises. Closing twice is harmless; a
        loop-bound pool can be closed on each of its loops.

        >>> async def main(): await pool.fill(2); await pool.aclose(); return pool.stats().idle
        >>> pool = AsyncPool(bytearray); asyncio.run(main())
        0

        :raises Exception: as for `clear`.
        """
        # In this order, because a put that still sees `_plain_put` checks `_closed` afterwards.
        self._closed = True
        self._plain_put = False
        await self._close_idle()

    async def _close_idle(self, *, ending: bool = False) -> int:
        """Do the same as `clear`. If the loop is `ending`, a cancellation stops only the closing of one object."""
        count = 0
        errors: list[BaseException] = []
        # Limited to the objects that are idle now, so that a busy pool cannot keep this loop running forever. They are
        # taken one at a time, so that the others stay idle if this is interrupted.
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

    # --- inspecting ---

    def stats(self, /) -> PoolStats:
        """Return a snapshot: the pool's counts since its creation, and its idle objects. Thread-safe; never waits.

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
        # `None` before the block, then a list of at most one object. Its pop takes the object in one step, so even a
        # shared borrow puts it back once.
        self._held: list[T] | None = None

    async def __aenter__(self) -> T:
        if self._held is not None:
            raise RuntimeError("this borrow was entered already: call borrow() for each block")
        # Set before the object exists; otherwise two tasks that share a borrow could both enter while they wait.
        held: list[T] = []
        self._held = held
        pool = self._pool
        try:
            # The usual case of pool.get(), written out here to save a coroutine.
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
            return  # another task or thread has just left the block
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
    """Raise the `errors`, if there are any. A cancellation is raised as such, with the other errors as its cause."""
    plain = [error for error in errors if isinstance(error, Exception)]
    others = [error for error in errors if not isinstance(error, Exception)]
    # Breaks the reference cycle of the frames that hold the list, which only the garbage collector would free.
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


# --- closing objects that are bound to a loop before it ends ---


def _watch_the_end(pool: AsyncPool[Any]) -> bool:
    """Have idle objects of the running loop closed while this can still be awaited. `False` if it is too late."""
    record = current_record()
    if record is None or record.mark.ended:
        return False
    if record.guard is None:
        # If the loop would end the record first, the guard keeps the record alive until it has finished.
        tie = record.tie() if record.tie is not None and record.loop.ends_async_generators_last else None
        record.guard = _guard(record, tie)
        # Run the guard to its yield. It stays there until the loop shuts down its async generators.
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
