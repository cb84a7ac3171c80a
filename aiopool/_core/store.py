"""The store: one pool's idle objects, and the order in which a get looks for one.

    take:  private slot → own shared list, newest first → steal, oldest first, from the next processor on
           → victim (own private slot, then every shared list)
    keep:  private slot if free → own shared list

What a take finds is private to the running thread in the common case, and so costs no lock and no look at any other
thread. The price is that an object can lie idle with one processor while another creates a new one: private slots
cannot be stolen. Bounded as they are by one object for each processor, that is the trade-off that Go makes too.

Shards lie in generations, each a mapping from processor ids to shards. The newest is the primary, the one before it
the victim; a cleanup cycle begins a new one and retires what is older. A generation is taken out with one `dict.pop`,
so whatever cycles and `clear` run into each other, each retires what the others did not, and nothing twice. A cycle
that an exception breaks off leaves one generation too many, which the next one retires.

The fast paths of a pool look only at `fast_get` and `fast_put`: the primary, as long as the usual case is all there is
to do; an empty mapping while somebody observes, or where `max_idle` must be counted.
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

# Looked up once: every take and every put makes this call.
_pinned = pinned.get


class Contents:
    """What a store holds and has counted."""

    __slots__ = ("counters", "cycles", "generations", "numbers", "since")

    def __init__(self) -> None:
        self.generations: dict[int, Shards] = {0: {}}
        self.numbers = itertools.count(1)
        self.counters: dict[int, Counters] = {}
        self.cycles = 0
        #: when the primary was last replaced, or began to fill; in seconds of time.monotonic()
        self.since = monotonic()

    def begin(self) -> int:
        """Begin an empty generation; its number."""
        number = next(self.numbers)
        self.generations[number] = {}
        return number

    def retire(self, before: int) -> list[Retired]:
        """Take out the generations with smaller numbers than `before`; their shards."""
        retired: list[Retired] = []
        for number in sorted(self.generations):
            if number < before:
                retired += self.generations.pop(number, _EMPTY).values()
        return retired


@in_c
class Store:
    """Idle objects that any event-loop thread may take. Safe from any thread; never waits."""

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
        """`slots` is how many objects stay private to a processor, and `max_idle` how many one processor keeps at most.

        `label` is what errors call the pool.
        """
        self._slots = slots
        self.max_idle = max_idle
        self._label = label
        self._idle_timeout = idle_timeout
        self._observed = False
        self._contents = Contents()
        self._publish()

    def _publish(self) -> None:
        """Let takes and puts find the newest generations."""
        while True:
            contents, observed = self._contents, self._observed
            numbers = sorted(contents.generations)
            primary = contents.generations.get(numbers[-1])
            if primary is None:
                continue  # retired since, and so there is a newer one; no put may ever see the shared empty mapping
            # In this order, so that every idle object can be found at every moment: between the two the same shards may
            # be primary and victim. A get looks at them twice, a put finds them and lands in the victim.
            #: what the last cleanup cycle set aside
            self.victim = contents.generations.get(numbers[-2], _EMPTY) if len(numbers) > 1 else _EMPTY
            #: where objects are put now
            self.primary = primary
            self.fast_get = _EMPTY if observed else primary
            self.fast_put = _EMPTY if observed or self.max_idle is not None else primary
            if (
                contents is self._contents
                and observed == self._observed
                and numbers[-1] == max(contents.generations.copy())
            ):
                return

    # --- take and keep ---

    def take(self) -> Any:
        """An idle object, or `None`. Counted as a hit or a miss of the running processor."""
        processor = _pinned()
        if processor.thread_id == get_ident():
            shard = self.fast_get.get(processor.id)
            if shard is not None:
                obj = shard.take_private() if shard.private else None
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
            # From here on a cleanup cycle may make our shard the victim's. It stays ours, and what is in it is found
            # now or looked at twice; it cannot be found by two, because each take is atomic.
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
            # Still touched by its owner only: code that retires it later leaves the private slot alone.
            obj = own.take_private()
            if obj is not None:
                return obj
        return _steal(victim, id)

    def take_any(self) -> Any:
        """An idle object of any processor, or `None`; not counted. For a store without private slots."""
        for shards in (self.primary, self.victim):
            for shard in list(shards.values()):
                obj = shard.take_oldest()
                if obj is None:
                    # Where a put found the lock busy. Any thread may take it, in a shard without private slots.
                    obj = shard.take_private()
                if obj is not None:
                    return obj
        return None

    def admit(self, obj: object) -> bool:
        """Whether `obj` may be put here: always.

        :raises ValueError: it lies in the running processor's private slot already.
        """
        processor: Processor | None = _pinned()
        if processor is None or processor.thread_id != get_ident():
            processor = pin()
        # Off-loop code has no private slot.
        shard = None if processor is None else self.primary.get(processor.id)
        if shard is not None and shard.holds_private(obj):
            raise ValueError(
                f"{identified(obj)} was put already and is idle in {self._label}: put each object once for each get"
            )
        return True

    def keep(self, obj: object) -> bool:
        """Put `obj`, which was admitted. `False`: it is over `max_idle`, and rejected."""
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
        # A cleanup cycle since then made this the victim's shard, or retired it. In the victim the object is found as
        # any other; from a retired shard it goes when we let go of the shard, as if it had come before the cycle.
        shard.put(obj)
        return True

    def reject(self, obj: object) -> None:
        """Count `obj`, which came back and is not kept."""
        id, _ = self._pin()
        counters = self._counters(id)
        counters.puts += 1
        counters.rejected += 1

    def created(self, obj: object) -> None:
        """Count `obj`, which was created and is checked out."""
        id, _ = self._pin()
        self._counters(id).created += 1

    def count_asked(self, n: int) -> None:
        """Count `n` bytes that were asked for. For size classes."""
        id, _ = self._pin()
        self._counters(id).asked += n

    def require_loop(self) -> None:
        """Objects that are bound to no loop need none."""

    def _pin(self) -> tuple[int, Processor | None]:
        """The id to run as, and the processor, if it is one."""
        processor: Processor | None = _pinned()
        if processor is None or processor.thread_id != get_ident():
            processor = pin()
        if processor is None:
            if (self.primary or self.victim) and monotonic() >= self._contents.since + self._idle_timeout:
                cleanup.check_time(self)
            return OFF_LOOP, None
        if processor.wakes_at == inf and self.idle_due() < inf:
            cleanup.watch(self, processor)  # the thread came to another loop, which has no timer yet
        return processor.id, processor

    def _counters(self, id: int) -> Counters:
        counters = self._contents.counters
        return counters.get(id) or counters.setdefault(id, Counters())

    def _add_shard(self, id: int, processor: Processor | None) -> Shard:
        contents = self._contents
        if not any(contents.generations.copy().values()):
            contents.since = monotonic()
        new = Shard(self._counters(id), 0 if processor is None else self._slots)
        # One atomic step, or a finalizer that got here too would lose its shard to ours with all it put there.
        shard = self.primary.setdefault(id, new)
        cleanup.watch(self, processor)
        return shard

    def _idle_at(self, id: int) -> int:
        """How many idle objects are kept there, the victim's included."""
        return sum([len(shard) for shards in (self.primary, self.victim) if (shard := shards.get(id)) is not None])

    # --- emptying ---

    def rotate(self) -> list[Retired]:
        """One cleanup cycle's part: primary becomes the victim; the old victim's shards, to be freed."""
        contents = self._contents
        number = contents.begin()
        contents.since = monotonic()
        contents.cycles += 1
        self._publish()
        return contents.retire(number - 1)

    def clear(self) -> list[Retired]:
        """Take out all idle objects; their shards, to be freed."""
        contents = self._contents
        number = contents.begin()
        self._publish()
        retired = contents.retire(number)
        self._publish()  # what was retired is no victim either
        return retired

    def forget_empty(self) -> list[Retired]:
        """Where nothing is idle, retire the empty shards: the next put makes one, and has it watched."""
        # An object that is put in between goes as if a cleanup cycle had come.
        return [] if sum([len(shard) for _, shard in self.shards()]) else self.clear()

    def set_aside(self) -> Contents:
        """Be as new, until `bring_back` is called with the result.

        A get or put under way goes on with the shard it holds, as in a cleanup cycle; so an object is in one of the
        two contents, never in both.
        """
        kept, self._contents = self._contents, Contents()
        self._publish()
        return kept

    def bring_back(self, kept: Contents) -> list[Retired]:
        """Hold and count again what was set aside; what came in between, to be freed."""
        passing, self._contents = self._contents, kept
        self._publish()
        return passing.retire(passing.begin())

    def observe(self, observed: bool) -> None:
        """Whether every get and put must take the slow path, where it is observed."""
        self._observed = observed
        self._publish()

    def renew_locks(self) -> None:
        """In the child of a fork: what lost threads locked is locked no more."""
        for _, shard in self.shards():
            shard.renew_lock()

    # --- looking at it ---

    def idle_due(self) -> float:
        """When idle objects call for a cycle, in seconds of time.monotonic(); infinity: nothing is idle."""
        contents = self._contents
        return contents.since + self._idle_timeout if self.primary or self.victim else inf

    def shards(self) -> list[tuple[int, Shard]]:
        """All shards, the victim's included, each with its processor's id."""
        # Copies: a collection in the middle of an iteration may run a finalizer that adds a shard.
        return [pair for shards in self._contents.generations.copy().values() for pair in shards.copy().items()]

    def counts(self) -> dict[int, Counters]:
        """What each processor did, by id."""
        return self._contents.counters.copy()

    def cycles(self) -> int:
        """How many cleanup cycles the store went through."""
        return self._contents.cycles


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


if native is not None:
    native.bind(watch=cleanup.watch, check_time=cleanup.check_time)
