"""Metrics for OpenTelemetry: observable instruments over all pools.

They count nothing themselves: whenever a reader collects, they read `stats()`. So pools cost nothing more in between,
and a program need not tell them of its pools.

    from aiopool.integrations.opentelemetry import observe_pools

    observe_pools()

Names, units and attributes follow the semantic conventions: dotted names, units as UCUM writes them, no unit or kind
in a name.
"""

from collections.abc import Callable, Iterable
from importlib.metadata import version

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from ._metrics import METRICS, POOL, Metric, PoolSeries, Series

__all__ = ["observe_pools"]

ATTRIBUTES = {POOL: "aiopool.pool.name"}
"""What an attribute is called, if not `aiopool.` and its name."""


def observe_pools(meter_provider: MeterProvider | None = None) -> None:
    """Have `aiopool.pools()` observed by the readers of `meter_provider` (`None`: the global one).

    Call it once for each provider: instruments can be created, and not removed. They are named `aiopool.pool.…` and
    `aiopool.buffer.…`, with the attributes `aiopool.pool.name`, and where it applies `aiopool.result` (where an object
    came from) and `aiopool.size_class` (bytes, or `oversize`). Pools with the same name are added up, those without a
    name under `(unnamed)`, and all beyond the first 100 names under `(other)`.

    Safe from any thread. To collect takes some microseconds for each pool, and some tens for each buffer pool.

    >>> from opentelemetry.metrics import NoOpMeterProvider
    >>> observe_pools(NoOpMeterProvider())
    """
    meter = get_meter("aiopool", version("aiosyncpool"), meter_provider)
    looks = _Looks()
    for metric in METRICS:
        # A level that can be added up over pools and processes is no gauge here, but an up-down counter.
        create = (
            meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_up_down_counter
        )
        create(metric.name, [_callback(metric, looks)], metric.unit, metric.description)


def _callback(metric: Metric, looks: "_Looks") -> Callable[[CallbackOptions], Iterable[Observation]]:
    names = [ATTRIBUTES.get(each, f"aiopool.{each}") for each in metric.attributes]

    def callback(_: CallbackOptions) -> Iterable[Observation]:
        series = looks.series_of(metric)
        return [Observation(number, dict(zip(names, key, strict=True))) for key, number in series.items()]

    return callback


class _Looks:
    """Looks at the pools once for all instruments.

    A reader that collects calls each instrument once. So the instrument that asks twice begins a new look. Where two
    readers collect at once, some instruments may tell one of them what is a moment older or newer.
    """

    def __init__(self) -> None:
        self._series = PoolSeries()
        self._untold: dict[str, Series] = {}

    def series_of(self, metric: Metric) -> Series:
        """The series of `metric` now."""
        series = self._untold.pop(metric.name, None)
        if series is None:
            self._untold = self._series.look()
            series = self._untold.pop(metric.name, {})
        return series
