"""The instruments, read by the real SDK."""

import doctest
from typing import Any

import pytest

import aiopool
from aiopool import BufferPool, Pool

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from aiopool.integrations import opentelemetry
from aiopool.integrations._metrics import METRICS, PoolSeries


@pytest.fixture
def reader() -> Any:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    opentelemetry.observe_pools(provider)
    yield reader
    provider.shutdown()


def collect(reader: Any) -> dict[str, Any]:
    """The metrics that the reader collects, by name."""
    data = reader.get_metrics_data()
    return {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def value(metric: Any, **attributes: str) -> float:
    wanted = {f"aiopool.{name.replace('pool', 'pool.name')}": value for name, value in attributes.items()}
    (point,) = [point for point in metric.data.data_points if dict(point.attributes) == wanted]
    number: float = point.value
    return number


def test_the_metrics_agree_with_stats(reader: Any) -> None:
    pool, buffers = Pool(bytearray, name="observed"), BufferPool(name="observed")
    pool.put(pool.get())
    view = buffers.acquire(3000)
    read = collect(reader)
    assert value(read["aiopool.pool.created"], pool="observed") == pool.stats().created == 1
    assert value(read["aiopool.pool.gets"], pool="observed", result="miss") == 1
    assert value(read["aiopool.pool.idle"], pool="observed") == 1
    assert value(read["aiopool.buffer.in_use"], pool="observed", size_class="4096") == 4096
    assert value(read["aiopool.buffer.requested"], pool="observed", size_class="4096") == len(view)


def test_each_collection_reads_the_pools_once(reader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(bytearray, name="read twice")
    looks = []
    look = PoolSeries.look
    monkeypatch.setattr(PoolSeries, "look", lambda self: looks.append(1) or look(self))
    for expected in range(1, 4):
        pool.get()
        assert value(collect(reader)["aiopool.pool.created"], pool="read twice") == expected
        assert len(looks) == expected


def test_two_readers_of_one_provider() -> None:
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    provider = MeterProvider(readers, shutdown_on_exit=False)
    opentelemetry.observe_pools(provider)
    pool = Pool(bytearray, name="two readers")
    for expected in range(1, 3):
        pool.get()
        for reader in readers:
            assert value(collect(reader)["aiopool.pool.created"], pool="two readers") == expected
    provider.shutdown()


def test_kinds_units_and_descriptions(reader: Any) -> None:
    pool, buffers = Pool(bytearray, max_idle=5, name="kinds"), BufferPool(name="kinds")
    pool.put(pool.get())
    buffers.acquire(1)
    read = collect(reader)
    assert read.keys() == {metric.name for metric in METRICS}
    for metric in METRICS:
        assert (read[metric.name].unit, read[metric.name].description) == (metric.unit, metric.description)
        assert read[metric.name].data.is_monotonic == (metric.kind == "counter")


def test_the_example_in_the_docstring() -> None:
    assert doctest.testmod(opentelemetry, extraglobs={"aiopool": aiopool}).failed == 0
