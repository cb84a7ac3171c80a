"""Statistics of a pool: counts by processor, and their sums.

Counting is always on. Each processor has its own counters, which need no lock. So a snapshot that is taken while other
threads use the pool may be slightly inconsistent; while the pool is not in use it is exact.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ._core.holders import Recorded
    from ._core.loop_bound_store import LoopBoundStore
    from ._core.place import Place
    from ._core.store import Store


def _plain(value: Any) -> Any:
    """`value` as dicts, lists, numbers and strings. Statistics include the values derived from their fields."""
    fields: tuple[str, ...] | None = getattr(value, "_fields", None)
    if fields is not None:
        derived = [name for name, member in vars(type(value)).items() if isinstance(member, property)]
        return {name: _plain(getattr(value, name)) for name in (*fields, *derived)}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


class ProcessorStats(NamedTuple):
    """Counts of what one processor has done with one pool since the pool was created."""

    #: the processor's id; 0 means all off-loop code
    id: int
    #: gets served from the private slot
    private: int
    #: gets served from the processor's own shared list
    shared: int
    #: gets served from another processor's shared list
    stolen: int
    #: gets served from the victim
    victim: int
    #: gets that found nothing
    misses: int
    #: objects created by `new`, in gets that found nothing and in `fill`
    created: int
    #: objects given to the pool, by `put`, by `fill` and by the end of a `borrow`
    puts: int
    #: objects not kept: over `max_idle`, rejected by `reset`, or held by a `borrow` that ended with an exception
    rejected: int
    #: the part of `rejected` that was over `max_idle`
    over_max_idle: int
    #: objects in this processor's shards now, including the victim's
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
    #: cleanup cycles that the pool has gone through
    cycles: int
    #: objects that were put and not kept: dropped by cleanup cycles or `clear`, or rejected
    dropped: int
    #: how many idle objects each processor keeps at most, or each loop in a loop-bound pool; `None`: no bound
    max_idle: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return this snapshot as nested plain data, for JSON for example, including the properties below.

        >>> AsyncPool(bytearray).stats().as_dict()["hits"]
        0
        """
        plain: dict[str, Any] = _plain(self)
        return plain

    @property
    def private(self) -> int:
        """Gets served from a private slot."""
        return sum([each.private for each in self.processors])

    @property
    def shared(self) -> int:
        """Gets served from the processor's own shared list."""
        return sum([each.shared for each in self.processors])

    @property
    def stolen(self) -> int:
        """Gets served from another processor's shared list."""
        return sum([each.stolen for each in self.processors])

    @property
    def victim(self) -> int:
        """Gets served from the victim."""
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
        """Objects that were put, or borrowed, and not kept."""
        return sum([each.rejected for each in self.processors])

    @property
    def over_max_idle(self) -> int:
        """Objects that came back while as many as `max_idle` were idle; part of `rejected`."""
        return sum([each.over_max_idle for each in self.processors])

    @property
    def idle(self) -> int:
        """Objects that are idle in the pool now."""
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
        """Hits divided by gets, from 0 to 1; 0 before the first get."""
        return self.hits / self.gets if self.gets else 0.0


def pool_stats(name: str | None, store: "Store | LoopBoundStore") -> PoolStats:
    """A snapshot of a pool, from the counters and the idle objects of its store."""
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
    # Objects that were put, were not taken again and are not idle were dropped. So the places that drop objects need
    # not count them. In a snapshot of a busy pool the difference may be negative for a moment.
    dropped = sum([each.puts - each.hits - each.idle for each in processors])
    return PoolStats(name, processors, store.cycles(), max(0, dropped), store.max_idle)


class SizeClassStats(NamedTuple):
    """Counts of what a `BufferPool` has done with one size class since the pool was created."""

    #: the size of each block, in bytes
    size: int
    #: views that were acquired
    served: int
    #: bytes that these acquires requested
    asked: int
    #: bytes of the blocks that are checked out now
    bytes_in_use: int
    #: gets and puts of the blocks
    blocks: PoolStats
    #: idle blocks that were freed to make room for others
    displaced: int

    @property
    def over_budget(self) -> int:
        """Blocks that were not kept, because there was no room for them in `max_idle_bytes`."""
        return self.blocks.rejected

    @property
    def retired(self) -> int:
        """Idle blocks that cleanup cycles and `clear` dropped."""
        return max(0, self.blocks.dropped - self.over_budget - self.displaced)

    @property
    def bytes_idle(self) -> int:
        """Bytes of the blocks that are idle now."""
        return self.blocks.idle * self.size

    @property
    def waste(self) -> float:
        """The fraction of the bytes served that were not requested, from 0 to 1; 0 before the first acquire."""
        return 1 - self.asked / (self.served * self.size) if self.served else 0.0


class OversizeStats(NamedTuple):
    """Counts of the buffers above a `BufferPool`'s `max_size`, which are not kept."""

    #: views that were acquired
    served: int
    #: bytes that these acquires requested
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
    #: buffers that were too large to be kept
    oversize: OversizeStats
    #: cleanup cycles that the pool has gone through
    cycles: int
    #: the most bytes that are kept idle
    max_idle_bytes: int
    #: the most bytes that were idle at once
    peak_idle: int
    #: the most bytes that were checked out at once; on a free-threaded build, the most that was noticed
    peak_in_use: int

    def as_dict(self) -> dict[str, Any]:
        """Return this snapshot as nested plain data, for JSON for example, including the properties below.

        >>> buffers.stats().as_dict()["bytes_in_use"]
        0
        """
        plain: dict[str, Any] = _plain(self)
        return plain

    @property
    def bytes_idle(self) -> int:
        """Bytes of blocks that are idle now."""
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
        """Idle blocks that were freed to make room for others."""
        return sum([each.displaced for each in self.classes])

    @property
    def retired(self) -> int:
        """Idle blocks that cleanup cycles and `clear` dropped."""
        return sum([each.retired for each in self.classes])

    @property
    def created(self) -> int:
        """Blocks that were created."""
        return sum([each.blocks.created for each in self.classes]) + self.oversize.served

    @property
    def hit_rate(self) -> float:
        """The fraction of views that reused a block, from 0 to 1; 0 before the first acquire."""
        return 1 - self.created / self.served if self.served else 0.0


class Holder(NamedTuple):
    """The views of a buffer pool that were acquired at one place in the program, were recorded, and are still alive."""

    #: where they were acquired: file, line and function
    place: str
    #: how many views were recorded
    views: int
    #: bytes of their blocks
    bytes: int
    #: bytes of all views that were acquired there, estimated from the recorded ones
    estimated_bytes: int
    #: seconds since the oldest of them was acquired
    age: float


def holders_of(records: "list[Recorded]", now: float) -> tuple[Holder, ...]:
    """The holders, one for each place, the oldest first. `now` is in seconds of time.monotonic()."""
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
