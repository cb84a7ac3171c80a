"""The cost of a scrape: reading 100 pools, and creating the text of Prometheus or the data of OpenTelemetry from that.

All pools are used between two scrapes, because unchanged pools are not read again. The time is CPU time of the thread
that scrapes. `prometheus_client` scrapes in a thread of its own by default; then a loop loses at most the time of the
switches to that thread.

What could make the figures misleading: `stats()` of a buffer pool has an entry for each size class, in use or not, and
each class in use has a dozen series. The buffer pools here use three classes.
"""

from collections.abc import Callable
from time import thread_time
from typing import Any

from _report import arguments, headline, plain_table, show, spread, write_json
from _timing import Spread
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from aiopool import BufferPool, Pool
from aiopool.integrations.opentelemetry import observe_pools
from aiopool.integrations.prometheus import PoolCollector

POOLS = 100

Spreads = dict[str, Spread]


def main() -> None:
    options = arguments(__doc__, rounds=30, quick=5)
    table = plain_table(
        f"{headline()}\nMilliseconds for a scrape of {POOLS} pools",
        "",
        "series",
        "Prometheus: as text",
        "OpenTelemetry",
    )
    found: dict[str, Spreads] = {}
    for name, create in (("Pool", pools), ("BufferPool", buffer_pools)):
        found[name] = measure(options.rounds, *create())
        table.add_row(name, *map(spread, found[name].values()))
    show(table)
    write_json(options.json, {name: {key: times.median for key, times in each.items()} for name, each in found.items()})


def pools() -> tuple[list[Any], Callable[[], None]]:
    """Pools, and a function that uses each of them."""
    created: list[Pool[bytearray]] = [Pool(bytearray, name=f"pool {number}") for number in range(POOLS)]

    def use() -> None:
        for pool in created:
            pool.put(pool.get())

    return created, use


def buffer_pools() -> tuple[list[Any], Callable[[], None]]:
    """Buffer pools, and a function that uses each of them."""
    created = [BufferPool(name=f"buffers {number}") for number in range(POOLS)]

    def use() -> None:
        for buffers in created:
            for size in (1000, 5000, 70_000):
                buffers.acquire(size)

    return created, use


def measure(rounds: int, alive: list[Any], use: Callable[[], None]) -> Spreads:
    """The milliseconds that each kind of scrape takes while the pools are `alive`."""
    collector, registry, reader = PoolCollector(), CollectorRegistry(), InMemoryMetricReader()
    registry.register(collector)
    observe_pools(MeterProvider([reader]))
    scrapes: dict[str, Callable[[], object]] = {
        "series": collector._series.look,
        "text": lambda: generate_latest(registry),
        "data": reader.get_metrics_data,
    }
    return {name: Spread.of([timed(scrape, use) for _ in range(rounds)]) for name, scrape in scrapes.items()}


def timed(scrape: Callable[[], object], use: Callable[[], None]) -> float:
    use()
    start = thread_time()
    scrape()
    return (thread_time() - start) * 1e3


if __name__ == "__main__":
    main()
