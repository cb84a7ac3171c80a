"""The metrics of pools for all metrics systems: one table of metrics, and the time series that it defines.

`stats()` counts for each pool. A metrics system needs time series, which differ in three ways:

- Series must not appear and disappear with each pool. So pools with the same name share their series, as do all pools
  without a name, and all names beyond the first `MAX_NAMES`.
- A counter that falls looks like a restart, after which everything is counted again. So the last counts of a pool stay
  in the sum after the pool was freed. And a snapshot of a busy pool, which may be slightly inconsistent, never makes a
  counter fall.
- Unused size classes have no series. A size class appears after its first use.

The trade-off: gets and puts between the last snapshot of a pool and its end are not counted.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

from .._buffer_pool import BufferPool
from .._core.registry import pools
from ..stats import BufferStats, PoolStats, ProcessorStats, SizeClassStats

MAX_NAMES = 100
"""How many names of pools have their own series."""

UNNAMED, OTHER, OVERSIZE = "(unnamed)", "(other)", "oversize"

POOL, SIZE_CLASS, RESULT, REASON = "pool", "size_class", "result", "reason"
"""The attributes that distinguish series."""

RESULTS = ("private", "shared", "stolen", "victim", "miss")

REASONS = ("over_budget", "displaced", "retired")

REJECTED = ("over_max_idle", "unusable")
"""`unusable`: `reset` rejected it, the block that held it failed, or the loop it belongs to has ended."""

Scope = Literal["pool", "bounded pool", "buffers", "size class"]
"""The source of a metric: `PoolStats`, those with `max_idle`, `BufferStats`, or each `SizeClassStats` in use."""

Read = Callable[[ProcessorStats, Any], Any]
"""Called with the counters, summed over the processors, and the stats. Returns one number, or one for each value."""


class Metric(NamedTuple):
    """One metric in OpenTelemetry's terms: a dotted name, and a unit in UCUM notation."""

    scope: Scope
    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    description: str
    read: Read
    #: for a metric with several numbers: the attribute that distinguishes them, and its value for each of them
    attribute: str | None = None
    values: tuple[str, ...] = ()

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that distinguish its series, in the order of the key."""
        size_class = (SIZE_CLASS,) if self.scope == "size class" else ()
        return (POOL, *size_class, *(() if self.attribute is None else (self.attribute,)))

    def keys(self, values: "Key") -> "list[Key]":
        """The keys of its series, if all attributes but its own have these values."""
        return [(*values, value) for value in self.values] or [values]


def _results(totals: ProcessorStats, _: object) -> tuple[int, ...]:
    return totals.private, totals.shared, totals.stolen, totals.victim, totals.misses


# To export another figure of the stats to all metrics systems, add an entry here.
METRICS = (
    Metric("pool", "aiopool.pool.count", "gauge", "{pool}", "Live pools with this name.", lambda totals, stats: 1),
    Metric(
        "pool",
        "aiopool.pool.gets",
        "counter",
        "{get}",
        "Gets, by where the object came from.",
        _results,
        RESULT,
        RESULTS,
    ),
    Metric(
        "pool", "aiopool.pool.created", "counter", "{object}", "Objects created.", lambda totals, stats: totals.created
    ),
    Metric("pool", "aiopool.pool.puts", "counter", "{object}", "Objects put.", lambda totals, stats: totals.puts),
    Metric(
        "pool",
        "aiopool.pool.rejected",
        "counter",
        "{object}",
        "Objects that were put, or borrowed, and not kept, by reason.",
        lambda totals, stats: (totals.over_max_idle, totals.rejected - totals.over_max_idle),
        REASON,
        REJECTED,
    ),
    Metric(
        "pool",
        "aiopool.pool.dropped",
        "counter",
        "{object}",
        "Objects dropped: rejected, or dropped by a cleanup cycle or by clear().",
        lambda totals, stats: stats.dropped,
    ),
    Metric(
        "pool",
        "aiopool.pool.cleanup_cycles",
        "counter",
        "{cycle}",
        "Cleanup cycles.",
        lambda totals, stats: stats.cycles,
    ),
    Metric(
        "pool", "aiopool.pool.idle", "gauge", "{object}", "Objects that are idle.", lambda totals, stats: totals.idle
    ),
    Metric(
        "bounded pool",
        "aiopool.pool.idle_limit",
        "gauge",
        "{object}",
        "Objects that each processor may keep idle, where there is a bound.",
        lambda totals, stats: stats.max_idle,
    ),
    Metric(
        "buffers",
        "aiopool.buffer.count",
        "gauge",
        "{pool}",
        "Live buffer pools with this name.",
        lambda totals, stats: 1,
    ),
    Metric(
        "buffers",
        "aiopool.buffer.cleanup_cycles",
        "counter",
        "{cycle}",
        "Cleanup cycles.",
        lambda totals, stats: stats.cycles,
    ),
    Metric(
        "buffers",
        "aiopool.buffer.idle_limit",
        "gauge",
        "By",
        "The most bytes that are kept idle.",
        lambda totals, stats: stats.max_idle_bytes,
    ),
    Metric(
        "buffers",
        "aiopool.buffer.idle_peak",
        "gauge",
        "By",
        "The most bytes that were idle at once.",
        lambda totals, stats: stats.peak_idle,
    ),
    Metric(
        "buffers",
        "aiopool.buffer.in_use_peak",
        "gauge",
        "By",
        "The most bytes that were checked out at once.",
        lambda totals, stats: stats.peak_in_use,
    ),
    Metric(
        "size class",
        "aiopool.buffer.gets",
        "counter",
        "{get}",
        "Gets of blocks, by where the block came from.",
        _results,
        RESULT,
        RESULTS,
    ),
    Metric(
        "size class",
        "aiopool.buffer.created",
        "counter",
        "{block}",
        "Blocks created.",
        lambda totals, stats: totals.created,
    ),
    Metric(
        "size class",
        "aiopool.buffer.dropped",
        "counter",
        "{block}",
        "Blocks dropped, by reason.",
        lambda totals, stats: (stats.over_budget, stats.displaced, stats.retired),
        REASON,
        REASONS,
    ),
    Metric(
        "size class",
        "aiopool.buffer.requested",
        "counter",
        "By",
        "Bytes requested.",
        lambda totals, stats: stats.asked,
    ),
    Metric(
        "size class",
        "aiopool.buffer.in_use",
        "gauge",
        "By",
        "Bytes of the blocks that are checked out.",
        lambda totals, stats: stats.bytes_in_use,
    ),
    Metric(
        "size class",
        "aiopool.buffer.idle",
        "gauge",
        "By",
        "Bytes of the blocks that are idle.",
        lambda totals, stats: totals.idle * stats.size,
    ),
)

Key = tuple[str, ...]
"""The values of a metric's attributes."""

Series = dict[Key, float]

Numbers = dict[tuple[str, Key], float]
"""By the name of the metric and the key of the series."""


class _Part:
    """One scope of a pool, or one size class: its series, and the numbers that were read last."""

    __slots__ = ("_metrics", "counters", "keys", "numbers")

    def __init__(self, scope: Scope, values: Key) -> None:
        self._metrics = _BY_SCOPE[scope]
        self.keys = [(metric.name, key) for metric in self._metrics for key in metric.keys(values)]
        #: how many of them are counters, which come first
        self.counters = sum(len(metric.values) or 1 for metric in self._metrics if metric.kind == "counter")
        self.numbers: list[float] = [0] * self.counters

    def read(self, totals: ProcessorStats, stats: Any) -> None:
        """Bring the numbers up to date."""
        read: list[float] = []
        for metric in self._metrics:
            if metric.values:
                read += metric.read(totals, stats)
            else:
                read.append(metric.read(totals, stats))
        counters = self.counters
        self.numbers = [*map(max, read[:counters], self.numbers), *read[counters:]]


class _Seen:
    """A pool, and its series at the last snapshot."""

    __slots__ = ("label", "parts", "pool", "stats")

    def __init__(self, pool: Any, label: str) -> None:
        self.pool = weakref.ref(pool)
        self.label = label
        self.stats: PoolStats | BufferStats | None = None
        self.parts: dict[tuple[Scope, Key], _Part] = {}

    def look(self, pool: Any) -> None:
        """Update `parts`."""
        stats = pool._stats_of_used() if isinstance(pool, BufferPool) else pool.stats()
        if stats == self.stats:
            return
        self.stats = stats
        for scope, values, totals, each in _parts(stats):
            part = self.parts.get((scope, values))
            if part is None:
                part = self.parts[scope, values] = _Part(scope, (self.label, *values))
            part.read(totals, each)


class PoolSeries:
    """The series of all metrics. Thread-safe; concurrent calls wait for each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._labels: set[str] = set()
        self._seen: dict[int, _Seen] = {}
        self._gone: Numbers = {}

    def look(self) -> dict[str, Series]:
        """Return the current series, by the name of the metric."""
        with self._lock:
            known = pools()
            self._forget_gone(known)
            numbers = self._gone.copy()
            for pool in known:
                seen = self._seen.get(id(pool))
                if seen is None:
                    seen = self._seen[id(pool)] = _Seen(pool, self._label(pool.stats().name))
                seen.look(pool)
                for part in seen.parts.values():
                    _add(numbers, part.keys, part.numbers)
        series: dict[str, Series] = {metric.name: {} for metric in METRICS}
        for (name, key), number in numbers.items():
            series[name][key] = number
        return series

    def _forget_gone(self, known: list[Any]) -> None:
        """Keep the counts of pools that were freed. (Another pool may have the same id by now.)"""
        alive = {id(pool): pool for pool in known}
        for key, seen in list(self._seen.items()):
            if seen.pool() is None or seen.pool() is not alive.get(key):
                del self._seen[key]
                for part in seen.parts.values():
                    _add(self._gone, part.keys[: part.counters], part.numbers[: part.counters])

    def _label(self, name: str | None) -> str:
        if name is None:
            return UNNAMED
        if len(self._labels) < MAX_NAMES:
            self._labels.add(name)
        return name if name in self._labels else OTHER


_BY_SCOPE: dict[Scope, list[Metric]] = {
    scope: sorted([metric for metric in METRICS if metric.scope == scope], key=lambda metric: metric.kind)
    for scope in get_args(Scope)
}


def _parts(stats: PoolStats | BufferStats) -> Iterator[tuple[Scope, Key, ProcessorStats, Any]]:
    """The sources of metrics in `stats`: the scope, the values of its attributes, and the arguments for `read`."""
    if isinstance(stats, PoolStats):
        yield "pool", (), _totals(stats), stats
        if stats.max_idle is not None:
            yield "bounded pool", (), _NOTHING, stats
        return
    yield "buffers", (), _NOTHING, stats
    for each in stats.classes:
        yield "size class", (str(each.size),), _totals(each.blocks), each
    oversize = stats.oversize
    if oversize.served:
        # Buffers that are too large are always created, and never kept.
        totals = _NOTHING._replace(misses=oversize.served, created=oversize.served)
        part = SizeClassStats(0, *oversize, PoolStats(None, (totals,), 0, 0), displaced=0)
        yield "size class", (OVERSIZE,), totals, part


_NOTHING = ProcessorStats(*(0 for _ in ProcessorStats._fields))


def _totals(stats: PoolStats) -> ProcessorStats:
    """The counters summed over the processors, in a single pass. (Each property of `PoolStats` would need its own.)"""
    if len(stats.processors) == 1:
        return stats.processors[0]
    return ProcessorStats(*map(sum, zip(_NOTHING, *stats.processors, strict=True)))


def _add(numbers: Numbers, keys: list[tuple[str, Key]], more: list[float]) -> None:
    if numbers.keys().isdisjoint(keys):
        numbers.update(zip(keys, more, strict=True))
    else:
        for key, number in zip(keys, more, strict=True):
            numbers[key] = numbers.get(key, 0) + number
