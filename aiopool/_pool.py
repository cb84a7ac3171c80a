"""`Pool`: objects that are expensive to create and cheap to reuse, for all event-loop threads of a process.

The algorithm is that of Go's `sync.Pool`; compare `src/sync/pool.go`:

    get:  private slot → own shared list, newest first → steal, oldest first, from the next processor on
          → victim → new() → None
    put:  private slot if free → own shared list

The pool owns a store, which does all of this except `new`. The fast paths are written out here: each does the same as
the first lines of the slow path, and leaves everything unusual to it. Python may run a finalizer or a signal handler
between any two bytecodes, and these may use this same pool. So any line may be interrupted: an object is either in one
list or held by one frame, never both, because each step that moves it is a single C call.
"""

import inspect
from _thread import get_ident
from collections.abc import Awaitable, Callable
from math import inf
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar, overload

from ._checks import identified, name_or_none, natural, plain_callable_or_none, refuse_copy, seconds, shown
from ._core import cleanup, freeing, gc_clock
from ._core.loop_bound_store import LoopBoundStore
from ._core.observation import Observation, introduce
from ._core.processor import pinned, processors
from ._core.store import Store
from ._native import in_c, native, with_c_methods
from .stats import PoolStats, pool_stats

T = TypeVar("T")

# Looked up once, because every get and every put makes this call.
_pinned = pinned.get


@in_c
class PoolBase:
    """The data that get and put use."""

    __slots__ = ("_new", "_reset", "_store")

    _new: Any
    _reset: Any
    _store: Any


@with_c_methods
class Pool(PoolBase, Generic[T]):
    """A pool of reusable objects, shared by all event-loop threads of the process.

    `new()` creates an object when a get finds none; without `new`, such a get returns `None`.

    `reset(obj)` runs in `put`, before any other code can get the object. If it returns `False` or raises, the object is
    not kept; an exception reaches the caller of `put`.

    `max_idle` is the most idle objects that one processor keeps (off-loop code counts as one processor); objects put
    beyond it are rejected. `None` means no limit.

    `idle_timeout` is how long objects may be idle without a cleanup cycle, in seconds. Unused objects are freed after
    at most twice that time. With `None`, only the garbage collector and `cleanup()` start cycles.

    `loop_bound` is for objects that work on one loop only, such as an `asyncio.Lock` or a client session. Each is only
    checked out on the loop on which it was created, and when that loop ends, its idle objects are dropped. `max_idle`
    is then the most idle objects of one loop. Get and put such objects on a running loop.

    `name` appears in `repr` and `stats`.

    Safe to use from any thread, from finalizers and from signal handlers; never waits for a lock. On free-threaded
    builds from 3.14 on, a pool that is no longer referenced is freed by the next garbage collection.

    >>> pool = Pool(lambda: bytearray(65536))
    >>> with pool.borrow() as buffer: buffer[:5] = b"hello"

    :raises TypeError: `new` or `reset` is not callable, or is async (use `AsyncPool`); `max_idle` is not an integer,
        `idle_timeout` not a number, or `name` not a string.
    :raises ValueError: `max_idle` is negative, or `idle_timeout` is not positive.
    """

    # No __dict__, because CPython finds a method faster on an object that has none.
    __slots__ = ("__weakref__", "_name")

    @overload
    def __init__(
        self: "Pool[T | None]",  # pyright: ignore[reportInvalidTypeVarUse]
        new: None = None,
        *,
        reset: Callable[[T], object] | None = None,
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
        max_idle: int | None = None,
        idle_timeout: float | None = 60.0,
        loop_bound: bool = False,
        name: str | None = None,
    ) -> None: ...

    def __init__(
        self,
        new: Callable[[], Any] | None = None,
        *,
        reset: Callable[[Any], object] | None = None,
        max_idle: int | None = None,
        idle_timeout: float | None = 60.0,
        loop_bound: bool = False,
        name: str | None = None,
    ) -> None:
        self._new = plain_callable_or_none("new", new)
        self._reset = plain_callable_or_none("reset", reset)
        self._name = name_or_none(name)
        self._store = make_store(self, 1, max_idle, idle_timeout, loop_bound=loop_bound)
        introduce(self)

    @property
    def _stores(self) -> tuple[Any, ...]:
        return (self._store,)

    # --- get ---

    def get(self, /) -> T:
        """Return an idle object, or else a new one; `None` if the pool has no `new`. Never waits.

        On a loop this is as fast as `list.pop` with the C extension, and takes a quarter of a microsecond in Python.

        >>> len(Pool(lambda: bytearray(2)).get())
        2

        :raises Exception: whatever `new` raises; the pool is unchanged.
        :raises RuntimeError: the pool is loop-bound, and no loop runs on this thread.
        """
        processor = _pinned()
        if processor.thread_id == get_ident():
            try:
                shard = self._store.fast_get[processor.id]
                private = shard.private
                obj: T
                if private:
                    obj = private.pop()
                    shard.counters.private += 1
                    return obj
                obj = shard.take_newest()
                if obj is not None:
                    shard.counters.shared += 1
                    return obj
            except LookupError:
                pass  # no shard yet; or a finalizer took the private object between the check and the pop
        slow: T = self._get_slow()
        return slow

    def _get_slow(self) -> Any:
        store = self._store
        obj = store.take()
        if obj is None:
            if self._new is None:
                return None
            obj = self._new()
            store.created(obj)
        if Observation.observer is not None:
            try:
                Observation.observer.got(self, obj)
            except BaseException:
                store.keep(obj)  # otherwise it would be lost
                raise
        return obj

    # --- put ---

    def put(self, obj: T, /) -> None:
        """Return `obj` to the pool, for a later get. `None` is ignored. Do not use `obj` afterwards. Never waits.

        >>> pool.put(bytearray(3)); len(pool.get())
        3

        :raises ValueError: `obj` is already in this processor's private slot. Other double puts are only detected in
            debug mode.
        :raises Exception: whatever `reset` raises; `obj` is then not kept.
        :raises TypeError: `reset` returned an awaitable; `obj` is then not kept.
        :raises RuntimeError: the pool is loop-bound, and this thread runs no loop, or not the loop on which `obj` was
            created. If that loop has ended, `obj` is dropped instead.
        """
        if obj is None:
            return
        processor = _pinned()
        if self._reset is None and processor.thread_id == get_ident():
            try:
                shard = self._store.fast_put[processor.id]
            except KeyError:
                pass  # no shard yet
            else:
                private = shard.private
                if not private:
                    private.append(obj)
                    shard.counters.puts += 1
                    return
                if not shard.holds_private(obj):
                    shard.put(obj)
                    shard.counters.puts += 1
                    return
        self._put_slow(obj)

    def _put_slow(self, obj: T) -> None:
        store, observer = self._store, Observation.observer
        if observer is not None:
            observer.putting(self, obj)
        admitted = store.admit(obj)
        usable = False
        try:
            usable = admitted and (self._reset is None or self._accepts(self._reset(obj), obj))
        finally:
            # Also if reset raised.
            if not usable:
                store.reject(obj)
                if observer is not None:
                    observer.not_kept(self, obj)
        if usable and not store.keep(obj) and observer is not None:
            observer.not_kept(self, obj)

    def _accepts(self, result: object, obj: T) -> bool:
        """Whether to keep `obj`, for which `reset` returned `result`."""
        if result is None or result is True or result is False:
            return result is not False
        if isinstance(result, Awaitable):
            if inspect.iscoroutine(result):
                result.close()  # prevents the warning that it was never awaited
            raise TypeError(
                f"reset of {self!r} returned an awaitable, {shown(result)}, so {identified(obj)} is not kept: a Pool "
                "awaits nothing; AsyncPool takes an async reset"
            )
        return True

    # --- borrow ---

    def borrow(self, /) -> "Borrow[T]":
        """Get an object for the duration of a block: `with pool.borrow() as obj:`, or `async with`.

        The object is put back when the block ends normally. It is dropped if the block raises or is cancelled, because
        an object that may be in an inconsistent state must not be reused. About as fast as a get and a put.

        >>> with pool.borrow() as buffer: len(buffer)
        0
        """
        return Borrow(self)

    def _abandon(self, obj: T) -> None:
        """Count `obj`, which will not be put back."""
        self._store.reject(obj)
        if Observation.observer is not None:
            Observation.observer.not_kept(self, obj)

    # --- filling and emptying ---

    def fill(self, n: int, /) -> None:
        """Create `n` objects in advance and put them on this thread; other loops can steal them. `reset` does not run.

        >>> pool.fill(2); pool.stats().idle
        2

        :raises TypeError: the pool has no `new`, or `n` is not an integer.
        :raises ValueError: `n` is negative, or more than `max_idle`, so that some would be rejected at once.
        :raises Exception: whatever `new` raises; the objects created before are kept.
        :raises RuntimeError: the pool is loop-bound, and no loop runs on this thread.
        """
        count = may_fill(self, self._store, n)
        if self._new is None:
            raise TypeError(
                f"fill() needs a `new` factory; {self!r} has none: pass one to Pool, or put objects yourself"
            )
        for _ in range(count):
            obj = self._new()
            self._store.created(obj)
            self._store.keep(obj)

    def clear(self, /) -> int:
        """Drop all idle objects, including the victim's, and return how many there were.

        They are freed as in a cleanup cycle: by running loops in slices, or by this call if no loop is running. Objects
        that other threads put during the call may be kept or dropped.

        >>> pool.fill(2); pool.clear()
        2
        """
        retired = self._store.clear()
        count = sum(map(len, retired))
        freeing.retire(retired)
        # Otherwise this frame would hold the last references, and free the objects in private slots all at once.
        del retired
        cleanup.emptied(self._stores)
        return count

    # --- inspecting ---

    def stats(self, /) -> PoolStats:
        """Return a snapshot: what the pool has done since its creation, and its idle objects. Thread-safe; never waits.

        >>> pool.fill(2); pool.stats().created
        2
        """
        return pool_stats(self._name, self._store)

    def __repr__(self) -> str:
        name = hex(id(self)) if self._name is None else repr(self._name)
        return f"<aiopool.Pool {name}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Copying and pickling both end here."""
        refuse_copy(self, "objects")


@in_c
class Borrow(Generic[T]):
    """An object from a pool for the duration of one block. Created by `Pool.borrow`."""

    __slots__ = ("_held", "_pool")

    def __init__(self, pool: Pool[T]) -> None:
        self._pool = pool
        # At most one object. In a list, because pop takes it in one step, so even a shared borrow puts it back once.
        self._held: list[T] = []

    def __enter__(self) -> T:
        for obj in self._held:
            raise RuntimeError(f"this borrow holds {identified(obj)} already: call borrow() for each block")
        obj = self._pool.get()
        self._held[:] = [obj]
        return obj

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            obj = self._held.pop()
        except IndexError:
            return  # it was never entered, or was already left
        if exc_type is None:
            self._pool.put(obj)
        elif obj is not None:
            self._pool._abandon(obj)

    async def __aenter__(self) -> T:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, tb)


if hasattr(native, "drop_spare_borrows"):
    # Without a GIL a processor keeps the pool that it last borrowed from alive until a garbage collection.
    gc_clock.on_start.append(lambda: native.drop_spare_borrows(processors()))


# --- shared by both kinds of pool ---


def make_store(
    pool: object, slots: int, max_idle: int | None, idle_timeout: float | None, *, loop_bound: bool
) -> Store | LoopBoundStore:
    """Create the store for these options."""
    bound = None if max_idle is None else natural("max_idle", max_idle)
    timeout = inf if idle_timeout is None else seconds("idle_timeout", idle_timeout)
    kind = LoopBoundStore if loop_bound else Store
    return kind(slots, bound, timeout, repr(pool))


def may_fill(pool: object, store: Store | LoopBoundStore, n: int) -> int:
    """Check the arguments of `fill` and return how many objects to create."""
    count = natural("n", n)
    if store.max_idle is not None and count > store.max_idle:
        raise ValueError(f"fill({count}) is more than {pool!r} may keep: max_idle is {store.max_idle}")
    store.require_loop()
    return count
