"""What a pool did, counted by each processor and added up.

The counts are always on. Each processor counts for itself, without a lock, so a snapshot taken while other threads
work is off by what moves at that moment; on a pool at rest it is exact.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ._core.holders import Recorded
    from ._core.loop_bound_store import LoopBoundStore
    from ._core.place import Place
    from ._core.store import Store


def _plain(value: Any) -> Any:
    """`value` as dicts, lists, numbers and strings; statistics with what is derived from their fields."""
    fields: tuple[str, ...] | None = getattr(value, "_fields", None)
    if fields is not None:
        derived = [name for name, member in vars(type(value)).items() if isinstance(member, property)]
        return {name: _plain(getattr(value, name)) for name in (*fields, *derived)}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


class ProcessorStats(NamedTuple):
    """What one processor did with one pool since the pool was created."""

    #: the processor's id; 0 stands for all off-loop code
    id: int
    #: gets answered from the private slot
    private: int
    #: gets answered from the processor's own shared list
    shared: int
    #: gets answered from another processor's shared list
    stolen: int
    #: gets answered from what the last cleanup cycle set aside
    victim: int
    #: gets that found nothing
    misses: int
    #: objects created by `new`, in gets that found nothing and in `fill`
    created: int
    #: objects given to the pool, by `put`, by `fill` and by the end of a `borrow`
    puts: int
    #: objects not kept: over `max_idle`, rejected by `reset`, or held by a `borrow` that ended with an exception
    rejected: int
    #: objects that came back while as many as `max_idle` were idle; part of `rejected`
    over_max_idle: int
    #: objects that lie in this processor's shards now, victim included
    idle: int

    @property
    def hits(self) -> int:
        """Gets that found an object."""
        return self.private + self.shared + self.stolen + self.victim

    @property
    def gets(self) -> int:
        """All gets."""
        return self.hits + self.misses


class PoolStats(NamedTuple):
    """A snapshot of one pool.

    >>> pool.put(bytearray(10)); _ = pool.get(); stats = pool.stats()
    >>> stats.puts, stats.hits, stats.idle
    (1, 1, 0)
    """

    #: the pool's name, or `None`
    name: str | None
    #: one entry for each processor that ever used the pool, by id
    processors: tuple[ProcessorStats, ...]
    #: cleanup cycles that the pool went through
    cycles: int
    #: objects that the pool let go of: dropped by cleanup cycles and `clear`, or rejected
    dropped: int
    #: how many idle objects each processor keeps at most, in a loop-bound pool each loop; `None`: no bound
    max_idle: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as nested plain data, as for JSON; with the sums and rates that are attributes here.

        >>> AsyncPool(bytearray).stats().as_dict()["hits"]
        0
        """
        plain: dict[str, Any] = _plain(self)
        return plain

    @property
    def private(self) -> int:
        """Gets answered from a private slot."""
        return sum([each.private for each in self.processors])

    @property
    def shared(self) -> int:
        """Gets answered from the getter's own shared list."""
        return sum([each.shared for each in self.processors])

    @property
    def stolen(self) -> int:
        """Gets answered from another processor's shared list."""
        return sum([each.stolen for each in self.processors])

    @property
    def victim(self) -> int:
        """Gets answered from what the last cleanup cycle set aside."""
        return sum([each.victim for each in self.processors])

    @property
    def misses(self) -> int:
        """Gets that found nothing."""
        return sum([each.misses for each in self.processors])

    @property
    def created(self) -> int:
        """Objects created by `new`."""
        return sum([each.created for each in self.processors])

    @property
    def puts(self) -> int:
        """Objects given to the pool."""
        return sum([each.puts for each in self.processors])

    @property
    def rejected(self) -> int:
        """Objects that came back and were not kept."""
        return sum([each.rejected for each in self.processors])

    @property
    def over_max_idle(self) -> int:
        """Objects that came back while as many as `max_idle` were idle; part of `rejected`."""
        return sum([each.over_max_idle for each in self.processors])

    @property
    def idle(self) -> int:
        """Objects that lie in the pool now."""
        return sum([each.idle for each in self.processors])

    @property
    def hits(self) -> int:
        """Gets that found an object."""
        return sum([each.hits for each in self.processors])

    @property
    def gets(self) -> int:
        """All gets."""
        return sum([each.gets for each in self.processors])

    @property
    def hit_rate(self) -> float:
        """Hits for each get, from 0 to 1; 0 before the first get."""
        return self.hits / self.gets if self.gets else 0.0


def pool_stats(name: str | None, store: "Store | LoopBoundStore") -> PoolStats:
    """What a pool did, from the counters of its store, and what lies in it."""
    if not store.counts():
        return PoolStats(
            name, (), store.cycles(), 0, store.max_idle
        )  # most of a buffer pool's size classes, which are many
    idle = [(shard.counters, len(shard)) for _, shard in store.shards()]
    processors = tuple(
        [
            ProcessorStats(
                id=id,
                private=counters.private,
                shared=counters.shared,
                stolen=counters.stolen,
                victim=counters.victim,
                misses=counters.misses,
                created=counters.created,
                puts=counters.puts,
                # Before `rejected`, which is counted first: so it is never the larger one.
                over_max_idle=counters.over_max_idle,
                rejected=counters.rejected,
                idle=sum([count for owner, count in idle if owner is counters]),
            )
            for id, counters in sorted(store.counts().items())
        ]
    )
    # What was put and neither handed out again nor lies here was dropped: no drop needs to be counted, wherever it
    # happens. A snapshot of a busy pool may be off, so that the difference is negative for a moment.
    dropped = sum([each.puts - each.hits - each.idle for each in processors])
    return PoolStats(name, processors, store.cycles(), max(0, dropped), store.max_idle)


class SizeClassStats(NamedTuple):
    """What a `BufferPool` did with one size class since the pool was created."""

    #: bytes of each block
    size: int
    #: views that were acquired
    served: int
    #: bytes that were asked for, by all of them
    asked: int
    #: bytes of the blocks that are checked out now
    bytes_in_use: int
    #: how the blocks came and went
    blocks: PoolStats
    #: idle blocks that were freed to make room for others
    displaced: int

    @property
    def over_budget(self) -> int:
        """Blocks that came back when there was no room for them in `max_idle_bytes`."""
        return self.blocks.rejected

    @property
    def retired(self) -> int:
        """Idle blocks that cleanup cycles and `clear` dropped."""
        return max(0, self.blocks.dropped - self.over_budget - self.displaced)

    @property
    def bytes_idle(self) -> int:
        """Bytes of the blocks that lie in the pool now."""
        return self.blocks.idle * self.size

    @property
    def waste(self) -> float:
        """The share of the bytes served that were not asked for, from 0 to 1; 0 before the first acquire."""
        return 1 - self.asked / (self.served * self.size) if self.served else 0.0


class OversizeStats(NamedTuple):
    """What a `BufferPool` served above its `max_size`, and does not keep."""

    #: views that were acquired
    served: int
    #: bytes that were asked for, by all of them
    asked: int
    #: bytes that are checked out now
    bytes_in_use: int


class BufferStats(NamedTuple):
    """A snapshot of one buffer pool.

    >>> view = buffers.acquire(1500); stats = buffers.stats()
    >>> stats.served, stats.bytes_in_use, stats.bytes_idle
    (1, 2048, 0)
    """

    #: the pool's name, or `None`
    name: str | None
    #: one entry for each size class, the smallest first
    classes: tuple[SizeClassStats, ...]
    #: what was too large to be kept
    oversize: OversizeStats
    #: cleanup cycles that the pool went through
    cycles: int
    #: bytes that may lie idle
    max_idle_bytes: int
    #: the most bytes that lay idle at a time
    peak_idle: int
    #: the most bytes that were checked out at a time; on a free-threaded build, the most that was seen
    peak_in_use: int

    def as_dict(self) -> dict[str, Any]:
        """The same as nested plain data, as for JSON; with the sums and rates that are attributes here.

        >>> buffers.stats().as_dict()["bytes_in_use"]
        0
        """
        plain: dict[str, Any] = _plain(self)
        return plain

    @property
    def bytes_idle(self) -> int:
        """Bytes that lie in the pool now."""
        return sum([each.bytes_idle for each in self.classes])

    @property
    def bytes_in_use(self) -> int:
        """Bytes of blocks that are checked out now."""
        return sum([each.bytes_in_use for each in self.classes]) + self.oversize.bytes_in_use

    @property
    def served(self) -> int:
        """Views that were acquired."""
        return sum([each.served for each in self.classes]) + self.oversize.served

    @property
    def over_budget(self) -> int:
        """Blocks that were not kept, because there was no room for them in `max_idle_bytes`."""
        return sum([each.over_budget for each in self.classes])

    @property
    def displaced(self) -> int:
        """Idle blocks that were freed to make room for others that came back."""
        return sum([each.displaced for each in self.classes])

    @property
    def retired(self) -> int:
        """Idle blocks that cleanup cycles and `clear` dropped."""
        return sum([each.retired for each in self.classes])

    @property
    def created(self) -> int:
        """Blocks that had to be created."""
        return sum([each.blocks.created for each in self.classes]) + self.oversize.served

    @property
    def hit_rate(self) -> float:
        """Views over blocks that were used before, for each view, from 0 to 1; 0 before the first."""
        return 1 - self.created / self.served if self.served else 0.0


class Holder(NamedTuple):
    """What one place in the program holds of a buffer pool: recorded views that were acquired there and are alive."""

    #: where they were acquired: file, line and function
    place: str
    #: views that were recorded
    views: int
    #: bytes of their blocks
    bytes: int
    #: bytes that all views from there hold, estimated from those that were recorded
    estimated_bytes: int
    #: seconds since the oldest of them was acquired
    age: float


def holders_of(records: "list[Recorded]", now: float) -> tuple[Holder, ...]:
    """What each place holds, the oldest first. `now` is in seconds of time.monotonic()."""
    by_place: dict[Place, list[Recorded]] = {}
    for record in sorted(records, key=lambda record: record.since):
        by_place.setdefault(record.place, []).append(record)
    return tuple(
        [
            Holder(
                place=str(place),
                views=len(of_place),
                bytes=sum([each.size for each in of_place]),
                estimated_bytes=sum([each.size * each.stands_for for each in of_place]),
                age=now - of_place[0].since,
            )
            for place, of_place in by_place.items()
        ]
    )
