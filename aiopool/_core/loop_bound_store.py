"""The store of a loop-bound pool: each object is only ever checked out on the loop that it was created on.

It has the interface of `Store`. Idle objects are kept in a record that their loop holds, so a get sees only the objects
of its own loop, nothing is stolen, and all of them are freed when the loop ends. While the loop lives, retired objects
are freed on it, because the finalizer of a loop-bound object may use its loop, which no other thread may do.

The trade-off: Python has no fast path for it, and each loop that uses such a store holds a record of it.
"""

import itertools
import weakref
from _thread import get_ident
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, ClassVar

from .._checks import identified
from .._native import in_c, native
from . import cleanup
from .bound_loops import Bindings, LoopRecord, Mark, Part, current_record, records
from .departures import Departure
from .processor import OFF_LOOP, Processor, pin, pinned
from .registry import Retired
from .shard import Counters, Shard
from .store import Shards

# Looked up once, because every take and every put makes this call.
_pinned = pinned.get


@in_c
class LoopBoundStoreBase:
    """The data of the C extension's fast path. The Python version only stores the bindings, and has no fast path."""

    __slots__ = ("entries",)

    #: the bindings, by object id: a weak reference and the mark of the loop
    entries: dict[int, Any]
    #: the number of the published generation; 0: shards are not remembered
    published = 0

    def __init__(self) -> None:
        self.entries = {}

    def publish(self, gets: bool, puts: bool) -> None:
        """Forget the last generation's shards. `gets` and `puts` say which of these may take the fast path."""

    def remember(self, published: int, processor: Processor, shard: Shard, mark: Mark) -> None:
        """Let the loop with `mark` find `shard`, if `processor` runs it and `published` is still the generation."""


class BoundContents:
    """A loop-bound store's counters and generation. Its objects are in the records of the loops."""

    __slots__ = ("__weakref__", "_publish", "counters", "cycles", "newest", "numbers", "since")

    def __init__(self, publish: Callable[[], None]) -> None:
        self._publish = publish
        self.numbers = itertools.count(1)
        #: the generation in which objects are put
        self.newest = 0
        self.counters: dict[int, Counters] = {}
        self.cycles = 0
        self.since = monotonic()

    def parts(self) -> list[tuple[LoopRecord, Part]]:
        """The part of each loop's record that belongs to this store."""
        return [(record, part) for record in records() if (part := record.parts.get(id(self))) is not None]

    def begin(self) -> int:
        """Begin an empty generation and return its number."""
        # If two threads begin one at once, the smaller number may win. Then the next objects put are retired one cycle
        # early.
        self.newest = number = next(self.numbers)
        self._publish()
        return number

    def retire(self, before: int) -> list[Retired]:
        """Remove the generations with numbers below `before`. Returns their shards, to be freed on their own loops."""
        retired: list[Retired] = []
        try:
            for record, part in self.parts():
                for number in sorted(part.shards):
                    if number < before and (shard := part.shards.pop(number, None)) is not None:
                        retired.append(Departure(record.departures, shard))
        finally:
            # Publish again: if overlapping cycles set `newest` back to a smaller number, a put may have remembered one
            # of these shards after `begin`.
            self._publish()
            _wait_for_loops()
        return retired


def _wait_for_loops() -> None:
    """Wait until no loop uses a shard that it found before, to which it holds no reference."""
    if native is not None:
        native.quiesce()


class LoopBoundStore(LoopBoundStoreBase):
    """Idle objects, each for the loop it was created on. Thread-safe; gets and puts never wait."""

    __slots__ = ("__weakref__", "_bindings", "_contents", "_idle_timeout", "_label", "_observed", "_slots", "max_idle")

    # Always empty, so the fast paths in Python find nothing here.
    fast_get: ClassVar[Shards] = {}
    fast_put: ClassVar[Shards] = {}

    def __init__(self, slots: int, max_idle: int | None, idle_timeout: float, label: str) -> None:
        """As for `Store`; but `max_idle` is the most objects kept for one loop."""
        super().__init__()
        self._slots = slots
        self._observed = False
        self.max_idle = max_idle
        self._idle_timeout = idle_timeout
        self._label = label
        self._bindings = Bindings(self.entries)
        self._contents = self._new_contents()
        self._publish()

    def _new_contents(self) -> BoundContents:
        # A weak reference to the store, to avoid a reference cycle.
        method = weakref.WeakMethod(self._publish)
        return BoundContents(lambda: None if (publish := method()) is None else publish())

    def _publish(self) -> None:
        self.publish(not self._observed, not self._observed and self.max_idle is None)

    def require_loop(self) -> LoopRecord:
        """Return the record of the loop that runs on this thread.

        :raises RuntimeError: no loop runs on this thread.
        """
        record = current_record()
        if record is None:
            raise RuntimeError(
                f"{self._label} is loop-bound, and no loop runs on this thread: get and put its objects on a running "
                "loop, and drop those whose loop has ended"
            )
        return record

    # --- take and keep ---

    def take(self) -> Any:
        """Return an idle object of the running loop, or `None`.

        :raises RuntimeError: no loop runs on this thread.
        """
        record, part, counters, _ = self._pin()
        newest = self._contents.newest
        shard = part.shards.get(newest)
        if shard is not None:
            obj = shard.take_private()
            if obj is not None:
                counters.private += 1
                self._bindings.bind(obj, record.mark)
                return obj
            obj = shard.take_newest()
            if obj is not None:
                counters.shared += 1
                self._bindings.bind(obj, record.mark)
                return obj
        obj = self._take_from(part)
        if obj is not None:
            counters.victim += 1
            self._bindings.bind(obj, record.mark)
            return obj
        counters.misses += 1
        return None

    def _take_from(self, part: Part) -> Any:
        for shard in list(part.shards.values()):
            obj = shard.take_private()
            if obj is None:
                obj = shard.take_newest()
            if obj is not None:
                return obj
        return None

    def take_any(self) -> Any:
        """Return an idle object of the running loop, or `None`; not counted."""
        record = current_record()
        part = None if record is None else record.parts.get(id(self._contents))
        return None if part is None else self._take_from(part)

    def admit(self, obj: object) -> bool:
        """Whether `obj` may be put here. `False` if its loop has ended, so that it is useless.

        :raises ValueError: it was already put.
        :raises RuntimeError: no loop runs on this thread, or one that `obj` is not bound to.
        """
        here = current_record() or self.require_loop()
        part = here.parts.get(id(self._contents))
        for shard in [] if part is None else list(part.shards.values()):
            if shard.holds_private(obj):
                raise ValueError(
                    f"{identified(obj)} was put already and is idle in {self._label}: put each object once for each get"
                )
        mark = self._bindings.find(obj)
        # An object that was never checked out is assumed to be created on this loop.
        if mark is not None and mark is not here.mark and not mark.ended:
            raise RuntimeError(
                f"{identified(obj)} belongs to another loop than the one that runs here, and {self._label} is "
                "loop-bound: put it on its own loop, for example with call_soon_threadsafe"
            )
        return not (mark or here.mark).ended

    def keep(self, obj: object) -> bool:
        """Put `obj`, which was admitted. Returns `False` if that would exceed `max_idle`, and `obj` was rejected."""
        # Before all else: if a cycle, a clear or test isolation replaces anything that is read below, this number is
        # outdated, and the fast path does not find the shard by it.
        published = self.published
        record, part, counters, processor = self._pin()
        counters.puts += 1
        if self.max_idle is not None and len(part) >= self.max_idle:
            self._bindings.forget(obj)
            counters.rejected += 1
            counters.over_max_idle += 1
            return False
        self._bindings.came_back(obj)
        newest = self._contents.newest
        shard = part.shards.get(newest)
        if shard is None:
            shard = part.shards.setdefault(newest, Shard(counters, self._slots))
            cleanup.watch(self, processor)
        shard.put(obj)
        if published and processor is not None and not record.mark.ended:
            self.remember(published, processor, shard, record.mark)
        return True

    def reject(self, obj: object) -> None:
        """Count `obj`, which was put and is not kept."""
        self._bindings.forget(obj)
        counters = self._counters(self._processor())
        counters.puts += 1
        counters.rejected += 1

    def created(self, obj: object) -> None:
        """Count `obj`, which was created on the running loop and is checked out."""
        self._counters(self._processor()).created += 1
        if obj is not None:
            self._bindings.bind(obj, self.require_loop().mark)

    def _pin(self) -> tuple[LoopRecord, Part, Counters, Processor | None]:
        record = current_record() or self.require_loop()
        contents = self._contents
        part = record.parts.get(id(contents))
        if part is None:
            if not contents.parts():
                contents.since = monotonic()
            part = record.part(contents)
        known = _pinned()
        is_valid = known.thread_id == get_ident() and known.wakes_at < inf
        processor = known if is_valid else self._processor()
        counters = None if processor is None else contents.counters.get(processor.id)
        return record, part, counters or self._counters(processor), processor

    def _processor(self) -> Processor | None:
        known = _pinned()
        processor = known if known.thread_id == get_ident() else pin()
        if processor is not None and processor.wakes_at == inf and self.idle_due() < inf:
            cleanup.watch(self, processor)  # the thread runs a new loop, which has no timer yet
        return processor

    def _counters(self, processor: Processor | None) -> Counters:
        id = OFF_LOOP if processor is None else processor.id
        counters = self._contents.counters
        return counters.get(id) or counters.setdefault(id, Counters())

    # --- emptying ---

    def rotate(self) -> list[Retired]:
        """Do this store's part of a cleanup cycle. Returns the old victim's shards, to be freed on their own loops."""
        contents = self._contents
        contents.since = monotonic()
        contents.cycles += 1
        return contents.retire(contents.begin() - 1)

    def clear(self) -> list[Retired]:
        """Remove all idle objects of all loops. Returns their shards, to be freed on their own loops."""
        contents = self._contents
        return contents.retire(contents.begin())

    def forget_empty(self) -> list[Retired]:
        """If nothing is idle, retire the empty shards."""
        return [] if sum([len(shard) for _, shard in self.shards()]) else self.clear()

    def set_aside(self) -> BoundContents:
        """Behave as a new store until `bring_back` is called with the result."""
        self._publish()  # first, or an exception before the second time could free shards that can still be found
        kept, self._contents = self._contents, self._new_contents()
        self._publish()  # again, because a put in between may have remembered a shard of `kept`
        _wait_for_loops()
        return kept

    def bring_back(self, kept: BoundContents) -> list[Retired]:
        """Restore what was set aside. Returns the shards filled in between, to be freed."""
        passing, self._contents = self._contents, kept
        return passing.retire(passing.begin())  # `begin` publishes

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
        return contents.since + self._idle_timeout if [part for _, part in contents.parts() if part.shards] else inf

    def shards(self) -> list[tuple[Mark, Shard]]:
        """All shards, including the victim's, each with the mark of its loop."""
        return [(record.mark, shard) for record, part in self._contents.parts() for shard in list(part.shards.values())]

    def counts(self) -> dict[int, Counters]:
        """The counters of each processor, by id."""
        return dict(self._contents.counters)

    def cycles(self) -> int:
        """How many cleanup cycles the store has gone through."""
        return self._contents.cycles
