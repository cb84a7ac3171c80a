"""A service that exports metrics of its pools by OpenTelemetry: one call, and the exporter that the program has anyway.

The service resizes images, here random ones, in pooled buffers. A reader collects in a thread of its own, once a
minute by default and once more at the end. The exporter here prints a few lines; a real program would have an OTLP
exporter.

Needs opentelemetry-sdk.
"""

import asyncio
import random

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    PeriodicExportingMetricReader,
)

from aiopool import BufferPool
from aiopool.integrations.opentelemetry import observe_pools

IMAGES, SIZE = 300, 200_000
SHOWN = ("aiopool.buffer.created", "aiopool.buffer.gets", "aiopool.buffer.in_use")

images = BufferPool(name="images")


class PrintingExporter(MetricExporter):
    """Prints the figures that are not 0."""

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object) -> MetricExportResult:
        scopes = [scope for resource in metrics_data.resource_metrics for scope in resource.scope_metrics]
        for metric in [metric for scope in scopes for metric in scope.metrics if metric.name in SHOWN]:
            for point in metric.data.data_points:
                if isinstance(point, NumberDataPoint) and point.value:
                    print(metric.name, point.value, metric.unit, dict(point.attributes or {}))
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        pass


async def resize(image: bytes) -> bytes:
    """Every second byte of the image, copied through a buffer."""
    with images.acquire(len(image)) as work:
        work[:] = image
        return bytes(work[::2])


async def main() -> None:
    for _ in range(IMAGES):
        image = random.randbytes(SIZE)
        if await resize(image) != image[::2]:
            raise RuntimeError("an image came out wrong")


if __name__ == "__main__":
    provider = MeterProvider([PeriodicExportingMetricReader(PrintingExporter())])
    observe_pools(provider)
    asyncio.run(main())
    provider.shutdown()  # which collects and exports once more
