"""`Pool`: objects that are expensive to make and cheap to use again, for all event-loop threads of a process.

The algorithm is Go's `sync.Pool`, to be read beside `src/sync/pool.go`:

    get:  private → own shared, newest first → steal, oldest first, from the next processor on → victim → new() → None
    put:  private if it is free → own shared

What a get takes is private to the running thread in the common case, and so costs no lock and no look at any other
thread. The price is that an object can lie idle with one processor while another makes a new one: private slots cannot
be stolen. Bounded as they are by one object a processor, that is the trade Go makes too.

The fast paths are written out in `get` and `put`; each stands for the first lines of its slow path and leaves
everything unusual to it. Python runs a finalizer or a signal handler between any two bytecodes, and it may use
this very pool. So every line is written to be interrupted: an object is in one list or in one frame's hands, never in
two, because each step that hands it on is a single C call.
"""

from _thread import get_ident
from bisect import bisect_right
from collections.abc import Callable
from math import inf
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar, overload

from . import _collector
from ._checks import callable_or_none, natural, refuse_copy, seconds, shown
from ._homes import Departure, Home, Origins, current_home, departures
from ._implementation import native
from ._processor import OFF_LOOP, Processor, pin, pinned
from ._shard import Shard, Tally
from .stats import PoolStats, ProcessorStats

T = TypeVar("T")

# By processor id, or in a loop-bound pool by `Home`.
Shards = dict[Any, Shard]

# Looked up once: these are the two calls that every get and every put makes.
_pinned = pinned.get


if TYPE_CHECKING or native is None:

    class Base:
        """What get and put look at. The compiled twin has one of its own, which it can look at without a call."""

        __slots__ = ("_keeps_all", "_primary")

        _keeps_all: bool
        _primary: Shards

else:
    Base = native.Base


class Pool(Base, Generic[T]):
    """Objects to use again, shared by every event-loop thread of the process.

    `new()` makes an object when a get finds none; without `new`, such a get returns `None`.

    `reset(obj)` runs in `put`, before anyone can see the object. If it returns `False` or raises, the object is not
    kept, and what it raised reaches the caller of `put`.

    `max_idle` bounds the idle objects that one processor keeps (off-loop code counts as one); what is put beyond it is
    dropped. `None`: no bound.

    `idle_timeout` is in seconds: so long may objects lie idle without a cleanup cycle. What is not used is gone after
    twice that. `None`: only the garbage collector and `cleanup()` start cycles.

    `loop_bound` is for objects that work on one loop only, such as an `asyncio.Lock` or a client session: each is only
    handed out on the loop on which it was made, and when that loop ends, what lies idle for it is dropped. `max_idle`
    then bounds what is kept for one loop. Get and put such objects on a running loop; a get and a put take about
    two microseconds each.

    `name` shows in `repr` and `stats`.

    Safe from any thread, from finalizers and from signal handlers; nothing here ever waits for a lock.

    >>> pool = Pool(lambda: bytearray(65536))
    >>> with pool.borrow() as buffer: buffer[:5] = b"hello"

    :raises TypeError: `new` or `reset` is not callable, `max_idle` is no integer, or `idle_timeout` no number.
    :raises ValueError: `max_idle` is negative, or `idle_timeout` is not positive.
    """

    # Whether the debug mode looks at what comes and goes.
    _WATCHED: ClassVar[bool] = True

    # No __dict__: CPython finds a method faster on an object that has none.
    __slots__ = (
        "__weakref__",
        "_cycles",
        "_idle_timeout",
        "_max_idle",
        "_name",
        "_new",
        "_origins",
        "_reset",
        "_since",
        "_tallies",
        "_victim",
    )

    # How many objects stay private to a processor.
    _SLOTS: ClassVar[int] = 1

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
        self._new = callable_or_none("new", new)
        self._reset = callable_or_none("reset", reset)
        self._max_idle = None if max_idle is None else natural("max_idle", max_idle)
        self._idle_timeout = inf if idle_timeout is None else seconds("idle_timeout", idle_timeout)
        self._name = name
        # Whether put keeps whatever comes.
        self._keeps_all = reset is None and max_idle is None and not loop_bound
        # In a loop-bound pool, where each lent object is at home.
        self._origins = Origins() if loop_bound else None
        self._primary: Shards = {}
        self._victim: Shards = {}
        self._tallies: dict[int, Tally] = {}
        self._cycles = 0
        # When primary was last replaced, or began to fill; in seconds of time.monotonic().
        self._since = monotonic()
        self._register()

    def _register(self) -> None:
        _collector.register(self)

    # --- get ---

    def get(self) -> T:
        """An idle object, else a new one, else `None`. Never waits.

        On a loop, as cheap as `list.pop` where the twin is compiled; a quarter of a microsecond in Python.

        >>> len(Pool(lambda: bytearray(2)).get())
        2

        :raises Exception: what `new` raises; the pool is as before.
        :raises RuntimeError: the pool is loop-bound, and no loop runs on this thread.
        """
        processor = _pinned()
        if processor.thread_id == get_ident():
            try:
                shard = self._primary[processor.id]
                private = shard.private
                obj: T
                if private:
                    obj = private.pop()
                    shard.tally.private += 1
                    return obj
                obj = shard.take_newest()
                if obj is not None:
                    shard.tally.shared += 1
                    return obj
            except LookupError:
                pass  # no shard yet; or a finalizer took the private object between the look and the pop
        slow: T = self._get_slow()
        return slow

    def _get_slow(self) -> Any:
        if self._origins is not None:
            return self._get_at_home(self._origins)
        get = Pool.get
        id, shard = self._pin()
        if Pool.get is not get:
            # The loop we came to is in debug mode, and so are pools from now on. This is the first get to be seen.
            return Pool.get(self)
        tally = shard.tally
        # From here on a cleanup cycle may make our shard the victim's. It stays ours, and what is in it is found now
        # or looked at twice; it cannot be found by two, for each take is atomic.
        obj = shard.take_private()
        if obj is not None:
            tally.private += 1
            return obj
        obj = shard.take_newest()
        if obj is not None:
            tally.shared += 1
            return obj
        obj = _steal(self._primary, id)
        if obj is not None:
            tally.stolen += 1
            return obj
        obj = self._take_victim(id)
        if obj is not None:
            tally.victim += 1
            return obj
        tally.missed += 1
        if self._new is None:
            return None
        obj = self._new()
        tally.made += 1
        return obj

    def _take_victim(self, id: int) -> Any:
        """What the last cleanup cycle set aside: own private first, then everyone's shared."""
        victim = self._victim
        own = victim.get(id)
        if own is not None:
            # Still touched by its owner only: whoever drops it later leaves the private slot alone.
            obj = own.take_private()
            if obj is not None:
                return obj
        return _steal(victim, id)

    # --- put ---

    def put(self, obj: T) -> None:
        """Give `obj` to whoever gets next. `None` is ignored. The caller must not use `obj` any more. Never waits.

        >>> pool.put(bytearray(3)); len(pool.get())
        3

        :raises ValueError: `obj` lies in this processor's private slot already. A double put elsewhere goes unnoticed.
        :raises Exception: what `reset` raises; `obj` is then not kept.
        :raises RuntimeError: the pool is loop-bound, and no loop runs on this thread, or another than `obj` was made
            on. If that has ended, `obj` is dropped instead.
        """
        if obj is None:
            return
        processor = _pinned()
        if self._keeps_all and processor.thread_id == get_ident():
            try:
                shard = self._primary[processor.id]
            except KeyError:
                pass  # no shard yet
            else:
                private = shard.private
                if not private:
                    private.append(obj)
                    shard.tally.puts += 1
                    return
                if not shard.holds_private(obj):
                    shard.put(obj)
                    shard.tally.puts += 1
                    return
        self._put_slow(obj)

    def _put_slow(self, obj: T) -> None:
        id, shard = self._pin()
        if shard.holds_private(obj):
            raise ValueError(f"{shown(obj)} was put already and is idle in {self!r}: put each object once for each get")
        welcome = self._origins is None or self._admits(self._origins, obj, id)
        tally = shard.tally
        tally.puts += 1
        # Refused until it is kept: so reset may raise whatever it likes, and the count is right.
        tally.refused += 1
        if not welcome:
            return
        if self._reset is not None and self._reset(obj) is False:
            return
        if self._max_idle is not None and self._idle_at(id) >= self._max_idle:
            return
        # A cleanup cycle since _pin made this the victim's shard, or dropped it. In the victim the object is found as
        # any other; from a dropped shard it goes when we let go of the shard, as if it had come before the cycle.
        shard.put(obj)
        tally.refused -= 1

    # --- what stands behind both ---

    def _pin(self) -> tuple[Any, Shard]:
        """The id to run as (in a loop-bound pool, the home), and its primary shard, made if need be."""
        processor = pin()
        id: Any = OFF_LOOP if processor is None else processor.id
        if self._origins is not None:
            id = self._home()
        primary = self._primary
        shard = primary.get(id)
        if shard is None:
            if not primary and not self._victim:
                self._since = monotonic()
            new = Shard(self._tally(processor), slots=0 if processor is None else self._SLOTS)
            # One atomic step, or a finalizer that got here too would lose its shard to ours with all it put there.
            shard = primary.setdefault(id, new)
            if self._origins is not None:
                id.house(self)
            _collector.watch(self, processor)
        elif processor is None:
            if monotonic() >= self.idle_due():
                _collector.run_due()
        elif processor.wake is None:
            _collector.watch(self, processor)
        return id, shard

    def _tally(self, processor: Processor | None) -> Tally:
        return self._tallies.setdefault(OFF_LOOP if processor is None else processor.id, Tally())

    def _idle_at(self, key: Any) -> int:
        """How many idle objects are kept there, the victim's included."""
        return sum(len(shard) for shards in (self._primary, self._victim) if (shard := shards.get(key)) is not None)

    def _idle_of(self, tally: Tally) -> int:
        """How many idle objects lie in one processor's shards: one of each kind, or one for each loop it ran."""
        return sum(
            len(shard)
            for shards in (self._primary, self._victim)
            for shard in list(shards.values())
            if shard.tally is tally
        )

    # --- loop-bound pools ---

    def _home(self) -> Home:
        home = current_home()
        if home is None:
            raise RuntimeError(
                f"{self!r} is loop-bound, and no loop runs on this thread: get and put its objects on a running loop, "
                f"and drop those whose loop has ended"
            )
        return home

    def _get_at_home(self, origins: Origins) -> Any:
        home, shard = self._pin()
        obj = self._take_at_home(home, shard)
        if obj is None:
            shard.tally.missed += 1
            if self._new is None:
                return None
            obj = self._new()
            shard.tally.made += 1
        origins.lend(obj, home)
        return obj

    def _take_at_home(self, home: Home, shard: Shard) -> Any:
        """Own private → own shared → the same in the victim. Nothing is stolen."""
        obj = shard.take_private()
        if obj is not None:
            shard.tally.private += 1
            return obj
        obj = shard.take_newest()
        if obj is not None:
            shard.tally.shared += 1
            return obj
        victim = self._victim.get(home)
        if victim is not None:
            obj = victim.take_private()
            if obj is None:
                obj = victim.take_newest()
            if obj is not None:
                shard.tally.victim += 1
        return obj

    def _admits(self, origins: Origins, obj: T, here: Home) -> bool:
        """Whether `obj` may be put here. `False`: its loop has ended, so it is of no use to anybody."""
        home = origins.find(obj)
        # An object that was never lent is taken to be made here.
        if home is not None and home is not here and not home.ended:
            raise RuntimeError(
                f"{shown(obj)} belongs to another loop than the one that runs here, and {self!r} is loop-bound: "
                f"put it on its own loop, as with call_soon_threadsafe"
            )
        origins.forget(obj)
        return not (home or here).ended

    def evict(self, home: Home) -> None:
        """The loop has ended: drop what was kept for it. The primary first, for a cycle may make it the victim now."""
        for shards in (self._primary, self._victim):
            shards.pop(home, None)

    # --- borrow ---

    def borrow(self) -> "Borrow[T]":
        """Get for the time of a block: `with pool.borrow() as obj:`, or `async with`.

        The object is put back when the block ends well, and dropped when it raises or is cancelled: something half-done
        must not reach the next one. About as fast as a get and a put.

        >>> with pool.borrow() as buffer: len(buffer)
        0
        """
        return Borrow(self)

    def _abandon(self, obj: T) -> None:
        """`obj` will not come back."""
        tally = self._tally(pin())
        tally.puts += 1
        tally.refused += 1

    def _note_lent(self, obj: T) -> None:
        """`obj`, which was made outside, is lent from now on. For the debug mode, which takes its place."""

    def _note_back(self, obj: T) -> None:
        """`obj` comes back, and not by `put`. For the debug mode, which takes its place."""

    # --- filling and emptying ---

    def fill(self, n: int) -> None:
        """Make `n` objects ahead of time and put them, here; other loops steal them. `reset` does not run.

        >>> pool.fill(2); pool.stats().idle
        2

        :raises TypeError: the pool has no `new`, or `n` is no integer.
        :raises ValueError: `n` is negative, or more than `max_idle`, so that some would be dropped at once.
        :raises Exception: what `new` raises; what it made before is kept.
        :raises RuntimeError: the pool is loop-bound, and no loop runs on this thread.
        """
        count = self._may_fill(n)
        if self._new is None:
            raise TypeError(f"{self!r} has no new to make objects with: pass one to Pool, or put objects yourself")
        for _ in range(count):
            obj = self._new()
            _, shard = self._pin()
            shard.tally.made += 1
            self._keep(obj)

    def _keep(self, obj: T) -> bool:
        """Keep an object that needs no reset. `False`: it is one too many."""
        id, shard = self._pin()
        shard.tally.puts += 1
        if self._max_idle is not None and self._idle_at(id) >= self._max_idle:
            shard.tally.refused += 1
            return False
        shard.put(obj)
        return True

    def _may_fill(self, n: int) -> int:
        """How many to make. Whatever speaks against it is said before anything is made."""
        count = natural("n", n)
        if self._max_idle is not None and count > self._max_idle:
            raise ValueError(f"fill({count}) is more than {self!r} may keep: max_idle is {self._max_idle}")
        if self._origins is not None:
            self._home()
        return count

    def clear(self) -> int:
        """Drop all idle objects, the victim's included; how many there were.

        They are freed as a cleanup cycle's are: by live loops in slices, and at once where no loop is alive. What
        other threads put during the call is kept or dropped.

        >>> pool.fill(2); pool.clear()
        2
        """
        primary, victim = self._primary, self._victim
        self._victim = {}
        self._primary = {}
        # During a cycle both may be the same for a moment.
        doomed = [shard for shards in (primary, {} if victim is primary else victim) for shard in self._doomed(shards)]
        count = sum(map(len, doomed))
        _collector.discard(doomed)
        return count

    def _doomed(self, shards: Shards) -> list[Shard | Departure]:
        """What the collector is to drop of `shards`. A loop-bound pool's objects die on their own loop."""
        return [*shards.values()] if self._origins is None else [*departures(shards)]

    # --- for the collector ---

    def rotate(self) -> list[Shard | Departure]:
        """One cleanup cycle's part: primary becomes the victim; the old victim's shards, to be dropped.

        In this order, so that every idle object can be found at every moment. Between the two stores the same shards
        are primary and victim: a get looks at them twice, a put finds them and lands in the victim.
        """
        dropped = self._victim
        self._victim = self._primary
        self._primary = {}
        self._since = monotonic()
        self._cycles += 1
        return self._doomed(dropped)

    def set_aside(self) -> Callable[[], list[_collector.Doomed]]:
        """Be as new, until the result is called: that brings back what is idle and counted now.

        What it returns is what came in between, to be dropped. A get or a put under way goes on with the shard it
        holds, as in a cleanup cycle; so an object is in one of the two, never in both. No cycle may come in between
        the stores.
        """
        kept = self._primary, self._victim, self._tallies, self._cycles, self._since
        self._primary, self._victim, self._tallies, self._cycles, self._since = {}, {}, {}, 0, monotonic()

        def bring_back() -> list[_collector.Doomed]:
            doomed: list[_collector.Doomed] = [*self._doomed(self._primary), *self._doomed(self._victim)]
            self._primary, self._victim, self._tallies, self._cycles, self._since = kept
            # A loop that ended meanwhile did not find what was set aside; one that ends from here on does.
            for home in {*self._primary, *self._victim} if self._origins is not None else ():
                if home.ended:
                    self.evict(home)
            return doomed

        return bring_back

    def idle_due(self) -> float:
        """When idle objects call for a cycle, in seconds of time.monotonic(); infinity: nothing is idle."""
        return self._since + self._idle_timeout if self._primary or self._victim else inf

    def renew_locks(self) -> None:
        """In the child of a fork: what lost threads locked is locked no more."""
        for shards in (self._primary, self._victim):
            for shard in shards.values():
                shard.renew_lock()

    # --- looking at it ---

    def stats(self) -> PoolStats:
        """What the pool did since it was made, and what lies in it. Safe from any thread; waits for nobody.

        >>> pool.fill(2); pool.stats().made
        2
        """
        processors = tuple(
            ProcessorStats(
                id=id,
                private=tally.private,
                shared=tally.shared,
                stolen=tally.stolen,
                victim=tally.victim,
                misses=tally.missed,
                made=tally.made,
                puts=tally.puts,
                refused=tally.refused,
                idle=self._idle_of(tally),
            )
            for id, tally in sorted(self._tallies.items())
        )
        # What was put and neither handed out again nor lies here was dropped: no drop needs to be counted, wherever it
        # happens. A snapshot of a busy pool may be off, so that the difference is negative for a moment.
        dropped = sum(each.puts - each.hits - each.idle for each in processors)
        return PoolStats(self._name, processors, self._cycles, max(0, dropped))

    def __repr__(self) -> str:
        name = hex(id(self)) if self._name is None else repr(self._name)
        return f"<aiopool.Pool {name}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Copying and pickling both end here."""
        refuse_copy(self, "objects")


class Borrow(Generic[T]):
    """An object from a pool for the time of one block. Made by `Pool.borrow`."""

    __slots__ = ("_held", "_pool")

    def __init__(self, pool: Pool[T]) -> None:
        self._pool = pool
        # At most one object. A list, for pop takes it in one step: who shares a borrow gives back once all the same.
        self._held: list[T] = []

    def __enter__(self) -> T:
        for obj in self._held:
            raise RuntimeError(f"this borrow holds {shown(obj)} already: call borrow() for each block")
        obj = self._pool.get()
        self._held[:] = [obj]
        return obj

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            obj = self._held.pop()
        except IndexError:
            return  # it was never entered, or left already
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


def _steal(shards: Shards, id: int) -> Any:
    """The oldest object of the first shard, from the one after `id` on and round to it, that has one to spare."""
    for other in _ring(shards, id):
        obj = shards[other].take_oldest()
        if obj is not None:
            return obj
    return None


def _ring(shards: Shards, id: int) -> list[int]:
    # A copy, made in one C call: other threads add shards meanwhile. None is ever taken out.
    ids = sorted(shards)
    start = bisect_right(ids, id)
    return ids[start:] + ids[:start]


if not TYPE_CHECKING and native is not None:
    Borrow = native.Borrow
    native.speed_up(Pool)
