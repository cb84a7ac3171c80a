"""Metrics for OpenTelemetry: observable instruments over all pools.

They count nothing themselves, but read `stats()` whenever a reader collects. So they cost nothing in between, and a
program need not register its pools.

    from aiopool.integrations.opentelemetry import observe_pools

    observe_pools()

Names, units and attributes follow the semantic conventions: dotted names, units in UCUM notation, and no unit or kind
in a name.
"""

from collections.abc import Callable, Iterable
from importlib.metadata import version

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from ._metrics import METRICS, POOL, Metric, PoolSeries, Series

__all__ = ["observe_pools"]

ATTRIBUTES = {POOL: "aiopool.pool.name"}
"""The names of attributes that are not just `aiopool.` and the attribute."""


def observe_pools(meter_provider: MeterProvider | None = None) -> None:
    """Let the readers of `meter_provider` (by default the global one) observe all `aiopool.pools()`.

    Call this once for each provider, because instruments cannot be removed. They are named `aiopool.pool.…` and
    `aiopool.buffer.…`, with the attribute `aiopool.pool.name`, and where it applies `aiopool.result` (where an object
    came from), `aiopool.reason` (why a block was dropped) and `aiopool.size_class` (bytes, or `oversize`). Pools with
    the same name are added up, those without a name under `(unnamed)`, and all beyond the first 100 names under
    `(other)`.

    Thread-safe. Collecting takes some microseconds for each pool, and some tens for each buffer pool.

    >>> from opentelemetry.metrics import NoOpMeterProvider
    >>> observe_pools(NoOpMeterProvider())
    """
    meter = get_meter("aiopool", version("aiosyncpool"), meter_provider)
    looks = _Looks()
    for metric in METRICS:
        # In OpenTelemetry, values that can be summed over pools and processes are up-down counters, not gauges.
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
    """Takes one snapshot of the pools for all instruments.

    A reader that collects calls each instrument once. So an instrument that is called a second time begins a new
    snapshot. If two readers collect at once, one of them may get values of some instruments that are a moment older or
    newer than the others.
    """

    def __init__(self) -> None:
        self._series = PoolSeries()
        self._untold: dict[str, Series] = {}

    def series_of(self, metric: Metric) -> Series:
        """Return the current series of `metric`."""
        series = self._untold.pop(metric.name, None)
        if series is None:
            self._untold = self._series.look()
            series = self._untold.pop(metric.name, {})
        return series
