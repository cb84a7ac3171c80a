"""The series of metrics: sums over pools, counters that never fall, and a bound on the number of names."""

import gc

import pytest

from aiopool import AsyncPool, BufferPool, Pool, PoolStats, ProcessorStats, cleanup
from aiopool.integrations import _metrics
from aiopool.integrations._metrics import METRICS, OTHER, UNNAMED, PoolSeries


@pytest.fixture
def series() -> PoolSeries:
    return PoolSeries()


def of(series: PoolSeries, name: str, label: str) -> dict[tuple[str, ...], float]:
    """The series of a metric for one pool, without the pool's label."""
    return {
        key: number for (pool, *key), number in series.look()[name].items() for key in [tuple(key)] if pool == label
    }


def test_the_series_of_a_pool(series: PoolSeries) -> None:
    pool = Pool(bytearray, max_idle=1, name="what it did")
    held = [pool.get() for _ in range(3)]
    for each in held:
        pool.put(each)
    pool.put(pool.get())
    looked = {name.removeprefix("aiopool.pool."): of(series, name, "what it did") for name in series.look()}
    assert looked["gets"] == {("private",): 0, ("shared",): 1, ("stolen",): 0, ("victim",): 0, ("miss",): 3}
    plain = ("count", "created", "puts", "dropped", "cleanup_cycles", "idle", "idle_limit")
    assert [looked[name][()] for name in plain] == [1, 3, 4, 2, 0, 1, 1]
    assert looked["rejected"] == {("over_max_idle",): 2, ("unusable",): 0}


def test_reasons_why_a_pool_rejected_objects(series: PoolSeries) -> None:
    pool = Pool(bytearray, max_idle=1, reset=lambda obj: obj != b"spoiled", name="rejecting")
    for each in (bytearray(), bytearray(), bytearray(b"spoiled")):
        pool.put(each)
    with pytest.raises(KeyError), pool.borrow():
        raise KeyError
    assert of(series, "aiopool.pool.rejected", "rejecting") == {("over_max_idle",): 1, ("unusable",): 2}


def test_a_pool_without_a_bound_has_no_series_for_it(series: PoolSeries) -> None:
    pools = [Pool(bytearray, name="unbounded"), Pool(bytearray, max_idle=0, name="bounded by 0")]
    assert of(series, "aiopool.pool.idle_limit", "unbounded") == {}
    assert of(series, "aiopool.pool.idle_limit", "bounded by 0") == {(): 0}
    del pools


def test_gets_of_several_processors_are_added_up() -> None:
    processors = tuple(ProcessorStats(id, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10) for id in (1, 2, 5))
    stats = PoolStats("several", processors, 0, 0)
    assert _metrics._totals(stats)[1:] == (3, 6, 9, 12, 15, 18, 21, 24, 27, 30)
    assert _metrics._totals(PoolStats("none", (), 0, 0)) == ProcessorStats(*[0] * 11)


def test_the_series_of_a_buffer_pool(series: PoolSeries) -> None:
    buffers = BufferPool(min_size=1024, max_size=4096, name="by class")
    held = [buffers.acquire(1000), buffers.acquire(5000), buffers.acquire(5001)]
    assert of(series, "aiopool.buffer.in_use", "by class") == {("1024",): 1024, ("oversize",): 10001}
    assert of(series, "aiopool.buffer.requested", "by class") == {("1024",): 1000, ("oversize",): 10001}
    assert of(series, "aiopool.buffer.created", "by class") == {("1024",): 1, ("oversize",): 2}
    assert of(series, "aiopool.buffer.gets", "by class")["oversize", "miss"] == 2
    held.clear()
    assert of(series, "aiopool.buffer.in_use", "by class") == {("1024",): 0, ("oversize",): 0}


def test_bounds_peaks_and_reasons_why_blocks_were_dropped(series: PoolSeries) -> None:
    buffers = BufferPool(min_size=1024, max_size=4096, max_idle_bytes=5000, name="bounded")
    held = [buffers.acquire(4096) for _ in range(3)]
    held.clear()
    stats = buffers.stats()
    for name, number in (
        ("idle_limit", 5000),
        ("idle_peak", stats.peak_idle),
        ("in_use_peak", stats.peak_in_use),
    ):
        assert of(series, f"aiopool.buffer.{name}", "bounded") == {(): number}
    (size_class,) = [each for each in stats.classes if each.size == 4096]
    dropped = of(series, "aiopool.buffer.dropped", "bounded")
    for reason in ("over_budget", "displaced", "retired"):
        assert dropped["4096", reason] == getattr(size_class, reason)
    assert sum(dropped.values()) == size_class.blocks.dropped
    assert stats.peak_in_use == 3 * 4096


def test_every_kind_of_pool_has_its_own_metrics(series: PoolSeries) -> None:
    pools = [Pool(name="kind"), AsyncPool(bytearray, name="kind"), BufferPool(name="kind")]
    assert of(series, "aiopool.pool.count", "kind") == {(): 2}
    assert of(series, "aiopool.buffer.count", "kind") == {(): 1}
    del pools


def test_pools_of_the_same_name_share_their_series_and_so_do_those_without_a_name(series: PoolSeries) -> None:
    pools = [Pool(bytearray, name=name) for name in ("shared", "shared", None, None)]
    for pool in pools:
        pool.get()
    assert of(series, "aiopool.pool.created", "shared") == {(): 2}
    assert of(series, "aiopool.pool.count", "shared") == {(): 2}
    assert of(series, "aiopool.pool.created", UNNAMED)[()] >= 2


def test_a_counter_keeps_the_counts_of_collected_pools(series: PoolSeries) -> None:
    def use_one() -> None:
        pool = Pool(bytearray, name="short-lived")
        pool.put(pool.get())
        assert of(series, "aiopool.pool.count", "short-lived") == {(): 1}

    for lived in range(1, 20):
        use_one()
        gc.collect()
        assert of(series, "aiopool.pool.created", "short-lived") == {(): lived}
        assert of(series, "aiopool.pool.count", "short-lived") == {}
    assert len(series._seen) < 100


def test_the_number_of_names_is_bounded(series: PoolSeries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_metrics, "MAX_NAMES", 3)
    series.look()
    known = len(series._labels)
    for number in range(50):
        pool = Pool(bytearray, name=f"connection {number}")
        pool.get()
        series.look()
        del pool
        gc.collect()
    labels = {key[0] for numbers in series.look().values() for key in numbers}
    assert len(labels) <= max(known, 3) + 2
    assert of(series, "aiopool.pool.created", OTHER)[()] >= 50 - 3
    # A name among the first keeps its series.
    pool = Pool(bytearray, name="connection 0")
    pool.get()
    assert known or of(series, "aiopool.pool.created", "connection 0") == {(): 2}


def test_a_counter_never_falls(series: PoolSeries, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(bytearray, name="busy")
    snapshots = iter([10, 7, 8, 12])
    monkeypatch.setattr(
        Pool, "stats", lambda self: PoolStats(self._name, (), 0, next(snapshots) if self is pool else 0), raising=True
    )
    # The first is read twice, for its name.
    seen = [of(series, "aiopool.pool.dropped", "busy")[()] for _ in range(3)]
    assert seen == [7, 8, 12]
    snapshots = iter([3])
    assert of(series, "aiopool.pool.dropped", "busy") == {(): 12}


def test_cleanup_cycles(series: PoolSeries) -> None:
    pool, buffers = Pool(bytearray, name="cycled"), BufferPool(name="cycled")
    pool.put(pool.get())
    buffers.acquire(1)
    cleanup()
    cleanup()
    assert of(series, "aiopool.pool.cleanup_cycles", "cycled") == {(): 2}
    assert of(series, "aiopool.buffer.cleanup_cycles", "cycled") == {(): 2}


def test_metrics_are_named_by_the_semantic_conventions() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("aiopool.")
        assert metric.name == metric.name.lower()
        assert not metric.name.endswith(("total", "bytes"))
        assert metric.unit == "By" or (metric.unit.startswith("{") and metric.unit.endswith("}"))
        assert metric.description.endswith(".")
