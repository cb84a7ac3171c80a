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
from typing import Any, Literal, NamedTuple

from .._core.registry import pools
from ..stats import BufferStats, PoolStats, ProcessorStats, SizeClassStats

MAX_NAMES = 100
"""How many names of pools have their own series."""

UNNAMED, OTHER, OVERSIZE = "(unnamed)", "(other)", "oversize"

POOL, SIZE_CLASS, RESULT, REASON = "pool", "size_class", "result", "reason"
"""The attributes that distinguish series."""

RESULTS = ("private", "shared", "stolen", "victim", "miss")

REASONS = ("over_budget", "displaced", "retired")

Scope = Literal["pool", "buffers", "size class"]
"""The source of a metric: `PoolStats`, `BufferStats`, or each `SizeClassStats` in use."""

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
        "Objects that were put, or borrowed, and not kept.",
        lambda totals, stats: totals.rejected,
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


class _Seen:
    """A pool, and its series at the last snapshot."""

    __slots__ = ("label", "pool", "series", "stats")

    def __init__(self, pool: Any, label: str) -> None:
        self.pool = weakref.ref(pool)
        self.label = label
        self.stats: PoolStats | BufferStats | None = None
        self.series: dict[str, Series] = {}

    def look(self, pool: Any) -> None:
        """Update `series`."""
        stats = pool.stats()
        if stats == self.stats:
            return
        self.stats = stats
        for scope, values, totals, part in _parts(stats):
            for metric in _BY_SCOPE[scope]:
                series = self.series.setdefault(metric.name, {})
                read = metric.read(totals, part)
                if metric.attribute is None:
                    _set(series, metric, (self.label, *values), read)
                else:
                    for value, number in zip(metric.values, read, strict=True):
                        _set(series, metric, (self.label, *values, value), number)


class PoolSeries:
    """The series of all metrics. Thread-safe; concurrent calls wait for each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._labels: set[str] = set()
        self._seen: dict[int, _Seen] = {}
        self._gone: dict[str, Series] = {}

    def look(self) -> dict[str, Series]:
        """Return the current series, by the name of the metric."""
        with self._lock:
            known = pools()
            self._forget_gone(known)
            series: dict[str, Series] = {metric.name: {} for metric in METRICS}
            _add_all(series, self._gone)
            for pool in known:
                seen = self._seen.get(id(pool))
                if seen is None:
                    seen = self._seen[id(pool)] = _Seen(pool, self._label(pool.stats().name))
                seen.look(pool)
                _add_all(series, seen.series)
            return series

    def _forget_gone(self, known: list[Any]) -> None:
        """Keep the counts of pools that were freed. (Another pool may have the same id by now.)"""
        alive = {id(pool): pool for pool in known}
        for key, seen in list(self._seen.items()):
            if seen.pool() is None or seen.pool() is not alive.get(key):
                del self._seen[key]
                _add_all(self._gone, {name: seen.series[name] for name in _COUNTERS & seen.series.keys()})

    def _label(self, name: str | None) -> str:
        if name is None:
            return UNNAMED
        if len(self._labels) < MAX_NAMES:
            self._labels.add(name)
        return name if name in self._labels else OTHER


_BY_SCOPE: dict[Scope, list[Metric]] = {
    scope: [metric for metric in METRICS if metric.scope == scope] for scope in ("pool", "buffers", "size class")
}

_COUNTERS = {metric.name for metric in METRICS if metric.kind == "counter"}


def _parts(stats: PoolStats | BufferStats) -> Iterator[tuple[Scope, Key, ProcessorStats, Any]]:
    """The sources of metrics in `stats`: the scope, the values of its attributes, and the arguments for `read`."""
    if isinstance(stats, PoolStats):
        yield "pool", (), _totals(stats), stats
        return
    yield "buffers", (), _NOTHING, stats
    for each in stats.classes:
        if each.blocks.processors:
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


def _set(series: Series, metric: Metric, key: Key, number: float) -> None:
    series[key] = max(number, series.get(key, 0)) if metric.kind == "counter" else number


def _add_all(series: dict[str, Series], more: dict[str, Series]) -> None:
    for name, numbers in more.items():
        known = series.setdefault(name, {})
        if known.keys().isdisjoint(numbers):
            known.update(numbers)
        else:
            for key, number in numbers.items():
                known[key] = known.get(key, 0) + number
