"""Metrics for Prometheus: a collector over all pools, for `prometheus_client`.

It counts nothing itself, but reads `stats()` at each scrape. So it costs nothing between scrapes, and a program need
not register its pools.

    from prometheus_client import REGISTRY
    from aiopool.integrations.prometheus import PoolCollector

    REGISTRY.register(PoolCollector())

The multi-process mode of `prometheus_client` does not support custom collectors; scrape each process separately there.
"""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from ._metrics import METRICS, Metric, PoolSeries, Series

__all__ = ["PoolCollector"]


class PoolCollector(Collector):
    """Collects the statistics of all `aiopool.pools()` at each scrape.

    Register one with a registry. Its metrics are named `aiopool_pool_…` and `aiopool_buffer_…`, with the label `pool`,
    and where it applies `result` (where an object came from), `reason` (why a block was dropped) and `size_class`
    (bytes, or `oversize`). Pools with the same name are added up, those without a name under `pool="(unnamed)"`, and
    all beyond the first 100 names under `pool="(other)"`.

    Thread-safe. A scrape takes some microseconds for each pool, and some tens for each buffer pool.

    >>> from prometheus_client import CollectorRegistry
    >>> pool = aiopool.Pool(bytearray, name="scraped"); pool.put(pool.get())
    >>> registry = CollectorRegistry(); registry.register(PoolCollector())
    >>> registry.get_sample_value("aiopool_pool_created_total", {"pool": "scraped"})
    1
    """

    def __init__(self) -> None:
        self._series = PoolSeries()

    def collect(self) -> Iterable[Family]:
        """Return all series. Called by `prometheus_client` at each scrape."""
        series = self._series.look()
        return [_family(metric, series[metric.name]) for metric in METRICS]

    def describe(self) -> Iterable[Family]:
        """Return the metrics without series, so that registering this needs no scrape."""
        return [_family(metric, {}) for metric in METRICS]


def _family(metric: Metric, series: Series) -> Family:
    name = metric.name.replace(".", "_") + ("_bytes" if metric.unit == "By" else "")
    create = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = create(name, metric.description, labels=metric.attributes)
    for labels, number in series.items():
        family.add_metric(labels, number)
    return family
