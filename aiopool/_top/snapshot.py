"""A snapshot of a process: the stats of its pools, and its processors, at one moment."""

import time
from typing import Any, NamedTuple

from ..stats import BufferStats, OversizeStats, PoolStats, ProcessorStats, SizeClassStats
from .process import LookError


class PoolRow(NamedTuple):
    """One pool, since it was created."""

    id: int
    kind: str
    #: of a buffer pool without size classes that were never used
    stats: PoolStats | BufferStats

    @property
    def gets(self) -> int:
        """Objects or views that were requested."""
        return self.stats.gets if isinstance(self.stats, PoolStats) else self.stats.served

    @property
    def created(self) -> int:
        """Objects or blocks that it created."""
        return self.stats.created

    def processors(self) -> list[ProcessorStats]:
        """The counts of each processor; in a buffer pool, those of each size class separately."""
        stores = [self.stats] if isinstance(self.stats, PoolStats) else [each.blocks for each in self.stats.classes]
        return [each for store in stores for each in store.processors]


class ProcessorRow(NamedTuple):
    """One processor; id 0 means off-loop code."""

    id: int
    thread_id: int | None
    #: the name of the loop that it runs, or `None`
    loop: str | None
    #: from all pools
    gets: int


class Snapshot(NamedTuple):
    """A process at one moment."""

    pid: int
    #: in seconds since 1970
    time: float
    implementation: str
    #: the longest time that the script stopped the process's main thread, not including its start
    seconds: float
    pools: tuple[PoolRow, ...]
    processors: tuple[ProcessorRow, ...]

    def as_plain(self) -> dict[str, Any]:
        """As plain data for JSON, including derived values."""
        pools = [{"id": each.id, "kind": each.kind, **each.stats.as_dict()} for each in self.pools]
        return {**self._asdict(), "pools": pools, "processors": [each._asdict() for each in self.processors]}


def snapshot(pid: int, parts: list[dict[str, Any]]) -> Snapshot:
    """Combine the parts of a look. A pool that is in two parts, because others were freed in between, counts once.

    :raises LookError: the stats there have other fields than here.
    """
    found = {id: (kind, stats) for part in parts for id, kind, stats in part["pools"]}
    try:
        rows = tuple([PoolRow(id, kind, _stats(stats)) for id, (kind, stats) in found.items()])
    except (KeyError, TypeError) as error:
        raise LookError(f"process {pid} has another version of aiopool than this one: {error}") from error
    gets: dict[int, int] = {}
    for row in rows:
        for each in row.processors():
            gets[each.id] = gets.get(each.id, 0) + each.gets
    alive = {id: (thread_id, loop) for id, thread_id, loop in parts[-1]["processors"]}
    return Snapshot(
        pid,
        time.time(),
        parts[-1]["implementation"],
        max(part["seconds"] for part in parts),
        rows,
        tuple([ProcessorRow(id, *alive.get(id, (None, None)), gets.get(id, 0)) for id in sorted({*gets, *alive})]),
    )


def _stats(plain: dict[str, Any]) -> PoolStats | BufferStats:
    """The reverse of `look._plain`."""
    if "classes" not in plain:
        return _pool_stats(plain)
    classes = tuple([SizeClassStats(**{**each, "blocks": _pool_stats(each["blocks"])}) for each in plain["classes"]])
    return BufferStats(**{**plain, "classes": classes, "oversize": OversizeStats(**plain["oversize"])})


def _pool_stats(plain: dict[str, Any]) -> PoolStats:
    return PoolStats(**{**plain, "processors": tuple([ProcessorStats(**each) for each in plain["processors"]])})
