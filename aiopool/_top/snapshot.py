"""A snapshot of a process: the figures of its pools and processors at one moment."""

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

COUNTERS = ("private", "shared", "stolen", "victim", "misses", "created", "puts", "rejected", "idle")


class ClassRow(NamedTuple):
    """One size class of a buffer pool."""

    size: int
    gets: int
    created: int
    bytes_in_use: int
    bytes_idle: int


class PoolRow(NamedTuple):
    """One pool, since it was created. A buffer pool's size classes are added up."""

    id: int
    kind: str
    name: str | None
    private: int
    shared: int
    stolen: int
    victim: int
    misses: int
    created: int
    puts: int
    rejected: int
    idle: int
    cycles: int
    #: of a buffer pool
    bytes_in_use: int = 0
    bytes_idle: int = 0
    peak_in_use: int = 0
    max_idle_bytes: int = 0
    classes: tuple[ClassRow, ...] = ()

    @property
    def hits(self) -> int:
        """Gets that found an object."""
        return self.private + self.shared + self.stolen + self.victim

    @property
    def gets(self) -> int:
        """All gets."""
        return self.hits + self.misses

    @property
    def hit_rate(self) -> float:
        """Hits divided by gets; 0 before the first get."""
        return self.hits / self.gets if self.gets else 0.0

    @property
    def holds_buffers(self) -> bool:
        """Whether it is a buffer pool."""
        return self.kind == "BufferPool" or bool(self.classes)


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
        pools = [
            {
                **each._asdict(),
                "gets": each.gets,
                "hit_rate": each.hit_rate,
                "classes": [size_class._asdict() for size_class in each.classes],
            }
            for each in self.pools
        ]
        return {**self._asdict(), "pools": pools, "processors": [each._asdict() for each in self.processors]}


def snapshot(pid: int, parts: list[dict[str, Any]]) -> Snapshot:
    """Combine the parts of a look. A pool that is in two parts, because others were freed in between, counts once."""
    told = {id: (kind, stats) for part in parts for id, kind, stats in part["pools"]}
    gets: dict[int, int] = {}
    for _, stats in told.values():
        for each in _processors(stats):
            gets[each["id"]] = gets.get(each["id"], 0) + _sum([each], *COUNTERS[:5])
    alive = {id: (thread_id, loop) for id, thread_id, loop in parts[-1]["processors"]}
    return Snapshot(
        pid,
        time.time(),
        parts[-1]["implementation"],
        max(part["seconds"] for part in parts),
        tuple([_row(id, kind, stats) for id, (kind, stats) in told.items()]),
        tuple([ProcessorRow(id, *alive.get(id, (None, None)), gets.get(id, 0)) for id in sorted({*gets, *alive})]),
    )


def _processors(stats: dict[str, Any]) -> list[dict[str, Any]]:
    """The counts of each processor, separately for each size class."""
    if "classes" not in stats:
        processors: list[dict[str, Any]] = stats["processors"]
        return processors
    return [each for size_class in stats["classes"] for each in size_class["blocks"]["processors"]]


def _row(id: int, kind: str, stats: dict[str, Any]) -> PoolRow:
    counts = {name: _sum(_processors(stats), name) for name in COUNTERS}
    classes = tuple([_class_row(each) for each in stats.get("classes", ())])
    oversize = stats.get("oversize")
    if oversize is not None:
        # Buffers that are too large are always created, and never kept.
        counts["misses"] += oversize["served"]
        counts["created"] += oversize["served"]
    in_use = sum(each.bytes_in_use for each in classes) + (oversize["bytes_in_use"] if oversize else 0)
    bytes_idle = sum(each.bytes_idle for each in classes)
    return PoolRow(
        id,
        kind,
        stats["name"],
        **counts,
        cycles=stats["cycles"],
        bytes_in_use=in_use,
        bytes_idle=bytes_idle,
        peak_in_use=stats.get("peak_in_use", 0),
        max_idle_bytes=stats.get("max_idle_bytes", 0),
        classes=classes,
    )


def _class_row(stats: dict[str, Any]) -> ClassRow:
    processors, size = stats["blocks"]["processors"], stats["size"]
    gets, created, idle = _sum(processors, *COUNTERS[:5]), _sum(processors, "created"), _sum(processors, "idle")
    return ClassRow(size, gets, created, stats["bytes_in_use"], idle * size)


def _sum(processors: Iterable[dict[str, Any]], *names: str) -> int:
    return sum(each[name] for each in processors for name in names)
