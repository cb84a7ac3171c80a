"""The store: one pool's idle objects, and the order in which a get looks for one.

    take:  private slot → own shared list, newest first → steal, oldest first, from the next processor on
           → victim (own private slot, then every shared list)
    keep:  private slot if free → own shared list

In the common case a take finds an object that is private to the running thread, so it needs no lock and does not look
at the data of other threads. The price is that an object can be idle in one processor's private slot, which cannot be
stolen, while another processor creates a new one. There is at most one such object for each processor; Go makes the
same trade-off.

Shards are kept in generations, each a mapping from processor ids to shards. The newest is the primary, the one before
it the victim; a cleanup cycle begins a new one and retires all older than the victim. A generation is removed with one
`dict.pop`, so when cycles and `clear` overlap, each retires what the others did not, and nothing is retired twice. A
cycle interrupted by an exception leaves one generation too many, which the next cycle retires.

The fast paths of a pool look only at `fast_get` and `fast_put`. They are the primary in the usual case, and an empty
mapping while an observer is set or where `max_idle` must be enforced.
"""

import itertools
from _thread import get_ident
from bisect import bisect_right
from math import inf
from time import monotonic
from typing import Any

from .._checks import identified
from .._native import in_c, native
from . import cleanup
from .processor import OFF_LOOP, Processor, pin, pinned
from .registry import Retired
from .shard import Counters, Shard

Shards = dict[int, Shard]

_EMPTY: Shards = {}

# Looked up once, because every take and every put makes this call.
_pinned = pinned.get


class Contents:
    """A store's shards and counters."""

    __slots__ = ("counters", "cycles", "generations", "numbers", "since")

    def __init__(self) -> None:
        self.generations: dict[int, Shards] = {0: {}}
        self.numbers = itertools.count(1)
        self.counters: dict[int, Counters] = {}
        self.cycles = 0
        #: when the primary was last replaced, or began to fill; in seconds of time.monotonic()
        self.since = monotonic()

    def begin(self) -> int:
        """Begin an empty generation and return its number."""
        number = next(self.numbers)
        self.generations[number] = {}
        return number

    def retire(self, before: int) -> list[Retired]:
        """Remove the generations with numbers below `before`, and return their shards."""
        retired: list[Retired] = []
        for number in sorted(self.generations):
            if number < before:
                retired += self.generations.pop(number, _EMPTY).values()
        return retired


@in_c
class Store:
    """Idle objects that any event-loop thread may take. Thread-safe; never waits."""

    __slots__ = (
        "__weakref__",
        "_contents",
        "_idle_timeout",
        "_label",
        "_observed",
        "_slots",
        "fast_get",
        "fast_put",
        "max_idle",
        "primary",
        "victim",
    )

    def __init__(self, slots: int, max_idle: int | None, idle_timeout: float, label: str) -> None:
        """`slots` objects stay private to a processor, which keeps at most `max_idle` objects in all.

        Error messages call the pool `label`.
        """
        self._slots = slots
        self.max_idle = max_idle
        self._label = label
        self._idle_timeout = idle_timeout
        self._observed = False
        self._contents = Contents()
        self._publish()

    def _publish(self) -> None:
        """Make the newest generations visible to takes and puts."""
        while True:
            contents, observed = self._contents, self._observed
            numbers = sorted(contents.generations)
            primary = contents.generations.get(numbers[-1])
            if primary is None:
                continue  # retired meanwhile, so there is a newer one; no put may ever see the shared empty mapping
            # The victim first, so that every idle object can be found at every moment. Between the two assignments the
            # same shards may be primary and victim: a get looks at them twice, and a put adds to the victim.
            #: what the last cleanup cycle set aside
            self.victim = contents.generations.get(numbers[-2], _EMPTY) if len(numbers) > 1 else _EMPTY
            #: where objects are put now
            self.primary = primary
            self.fast_get = _EMPTY if observed else primary
            self.fast_put = _EMPTY if observed or self.max_idle is not None else primary
            if (
                contents is self._contents
                and observed == self._observed
                and numbers[-1] == max(dict(contents.generations))
            ):
                return

    # --- take and keep ---

    def take(self) -> Any:
        """Return an idle object, or `None`. Counts a hit or a miss of the running processor."""
        processor = _pinned()
        if processor.thread_id == get_ident():
            shard = self.fast_get.get(processor.id)
            if shard is not None:
                if shard.private:
                    obj = shard.take_private()
                    if obj is not None:
                        shard.counters.private += 1
                        return obj
                obj = shard.take_newest()
                if obj is not None:
                    shard.counters.shared += 1
                    return obj
        return self._take_slow()

    def _take_slow(self) -> Any:
        id, _ = self._pin()
        counters = self._counters(id)
        shard = self.primary.get(id)
        if shard is not None:
            # From here on a cleanup cycle may make our shard the victim's. That is harmless: the shard still belongs to
            # this processor, at worst we look at it twice, and two takes never get one object, because each is atomic.
            obj = shard.take_private()
            if obj is not None:
                counters.private += 1
                return obj
            obj = shard.take_newest()
            if obj is not None:
                counters.shared += 1
                return obj
        obj = _steal(self.primary, id)
        if obj is not None:
            counters.stolen += 1
            return obj
        obj = self._take_victim(id)
        if obj is not None:
            counters.victim += 1
            return obj
        counters.misses += 1
        return None

    def _take_victim(self, id: int) -> Any:
        victim = self.victim
        own = victim.get(id)
        if own is not None:
            # Only the owner touches it: code that retires the shard later leaves the private slot alone.
            obj = own.take_private()
            if obj is not None:
                return obj
        return _steal(victim, id)

    def take_any(self) -> Any:
        """Return an idle object of any processor, or `None`; not counted. For a store without private slots."""
        for shards in (self.primary, self.victim):
            for shard in list(shards.values()):
                obj = shard.take_oldest()
                if obj is not None:
                    return obj
        return None

    def admit(self, obj: object) -> bool:
        """Return `True`, because any `obj` may be put here.

        :raises ValueError: it is already in the running processor's private slot.
        """
        known = _pinned()
        processor = known if known.thread_id == get_ident() else pin()
        # Off-loop code has no private slot.
        shard = None if processor is None else self.primary.get(processor.id)
        if shard is not None and shard.holds_private(obj):
            raise ValueError(
                f"{identified(obj)} was put already and is idle in {self._label}: put each object once for each get"
            )
        return True

    def keep(self, obj: object) -> bool:
        """Put `obj`, which was admitted. Returns `False` if that would exceed `max_idle`, and `obj` was rejected."""
        processor = _pinned()
        if processor.thread_id == get_ident():
            shard = self.fast_put.get(processor.id)
            if shard is not None:
                shard.put(obj)
                shard.counters.puts += 1
                return True
        return self._keep_slow(obj)

    def _keep_slow(self, obj: object) -> bool:
        id, processor = self._pin()
        counters = self._counters(id)
        counters.puts += 1
        if self.max_idle is not None and self._idle_at(id) >= self.max_idle:
            counters.rejected += 1
            counters.over_max_idle += 1
            return False
        shard = self.primary.get(id)
        if shard is None:
            shard = self._add_shard(id, processor)
        # Meanwhile a cleanup cycle may have made this the victim's shard, or retired it. Both are harmless: gets look
        # in the victim too, and with a retired shard the object is freed, as if it had been put before the cycle.
        shard.put(obj)
        return True

    def reject(self, obj: object) -> None:
        """Count `obj`, which was put and is not kept."""
        id, _ = self._pin()
        counters = self._counters(id)
        counters.puts += 1
        counters.rejected += 1

    def created(self, obj: object) -> None:
        """Count `obj`, which was created and is checked out."""
        id, _ = self._pin()
        self._counters(id).created += 1

    def count_asked(self, n: int) -> None:
        """Count `n` requested bytes. For size classes."""
        id, _ = self._pin()
        self._counters(id).asked += n

    def require_loop(self) -> None:
        """Do nothing: objects that are bound to no loop need none."""

    def _pin(self) -> tuple[int, Processor | None]:
        """The id to run as, and the processor, or `None` off-loop."""
        known = _pinned()
        processor = known if known.thread_id == get_ident() else pin()
        if processor is None:
            if (self.primary or self.victim) and monotonic() >= self._contents.since + self._idle_timeout:
                cleanup.check_time(self)
            return OFF_LOOP, None
        if processor.wakes_at == inf and self.idle_due() < inf:
            # The thread runs a new loop, or the loop that had the timer has ended. A get adds no shard, which sets one.
            cleanup.watch(self, processor)
        return processor.id, processor

    def _counters(self, id: int) -> Counters:
        counters = self._contents.counters
        return counters.get(id) or counters.setdefault(id, Counters())

    def _add_shard(self, id: int, processor: Processor | None) -> Shard:
        contents = self._contents
        if not any(dict(contents.generations).values()):
            contents.since = monotonic()
        new = Shard(self._counters(id), 0 if processor is None else self._slots)
        # One atomic step; otherwise our shard would replace that of a finalizer that got here too, with its objects.
        shard = self.primary.setdefault(id, new)
        cleanup.watch(self, processor)
        return shard

    def _idle_at(self, id: int) -> int:
        """How many idle objects the processor `id` has, including the victim's."""
        return sum([len(shard) for shards in (self.primary, self.victim) if (shard := shards.get(id)) is not None])

    # --- emptying ---

    def rotate(self) -> list[Retired]:
        """Do this store's part of a cleanup cycle: primary becomes the victim. Returns the old victim's shards."""
        contents = self._contents
        number = contents.begin()
        contents.since = monotonic()
        contents.cycles += 1
        self._publish()
        return contents.retire(number - 1)

    def clear(self) -> list[Retired]:
        """Remove all idle objects, and return their shards, to be freed."""
        contents = self._contents
        number = contents.begin()
        self._publish()
        retired = contents.retire(number)
        self._publish()  # again, because the victim was retired too
        return retired

    def forget_empty(self) -> list[Retired]:
        """If nothing is idle, retire the empty shards. The next put creates a new one, and has it watched."""
        # An object that is put in between is retired too, as by a cleanup cycle.
        return [] if sum([len(shard) for _, shard in self.shards()]) else self.clear()

    def set_aside(self) -> Contents:
        """Behave as a new store until `bring_back` is called with the result.

        A get or put already in progress continues with its shard, as in a cleanup cycle, so an object is never in both
        the old and the new contents.
        """
        kept, self._contents = self._contents, Contents()
        self._publish()
        return kept

    def bring_back(self, kept: Contents) -> list[Retired]:
        """Restore what was set aside. Returns the shards filled in between, to be freed."""
        passing, self._contents = self._contents, kept
        self._publish()
        return passing.retire(passing.begin())

    def observe(self, observed: bool) -> None:
        """Turn observation on or off: while it is on, gets and puts take the slow path, which notifies the observer."""
        self._observed = observed
        self._publish()

    def renew_locks(self) -> None:
        """In the child of a fork: replace the locks, because a thread that held one is gone."""
        for _, shard in self.shards():
            shard.renew_lock()

    # --- inspecting ---

    def idle_due(self) -> float:
        """When the idle objects need a cleanup cycle, in seconds of time.monotonic(); infinity if nothing is idle."""
        contents = self._contents
        return contents.since + self._idle_timeout if self.primary or self.victim else inf

    def shards(self) -> list[tuple[int, Shard]]:
        """All shards, including the victim's, each with its processor's id."""
        # Copies, because a garbage collection during an iteration may run a finalizer that adds a shard. Here and
        # elsewhere not by `copy()`: without a GIL it waits for a lock of its own thread if the dict has lost entries,
        # for 20 µs or, on a busy machine, much longer.
        return [pair for shards in dict(self._contents.generations).values() for pair in dict(shards).items()]

    def counts(self) -> dict[int, Counters]:
        """The counters of each processor, by id."""
        return dict(self._contents.counters)

    def cycles(self) -> int:
        """How many cleanup cycles the store has gone through."""
        return self._contents.cycles


def _steal(shards: Shards, id: int) -> Any:
    """Take the oldest object of the first shard that has one, starting after `id` and wrapping around; or `None`."""
    for other in _ring(shards, id):
        obj = shards[other].take_oldest()
        if obj is not None:
            return obj
    return None


def _ring(shards: Shards, id: int) -> list[int]:
    # A copy made in one C call, because other threads add shards meanwhile. None is ever removed.
    ids = sorted(shards)
    start = bisect_right(ids, id)
    return ids[start:] + ids[:start]


if native is not None:
    native.bind(watch=cleanup.watch, check_time=cleanup.check_time)
