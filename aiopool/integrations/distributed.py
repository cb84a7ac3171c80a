"""Dask workers that receive into pooled buffers.

    dask worker tcp://scheduler:8786 --preload aiopool.integrations.distributed

The problem: a worker receives each array from another worker into fresh memory. When the task that needed it has
finished, the memory is freed, and with the `MALLOC_TRIM_THRESHOLD_` that Dask's nanny sets it goes back to the system
at once. The next array is received into memory that the system has to supply and clear page by page. From about a
megabyte on, that costs more than receiving.

The solution: where Dask allocates memory to receive into, a worker with this preload takes a buffer from a
`BufferPool`. A NumPy array over the buffer keeps it checked out as long as the array, or a view of it, lives.

The trade-off: Dask counts the pool's idle buffers as unmanaged memory. So these never exceed an eighth of the worker's
memory limit, and they are freed some seconds after the last receive, and whenever the process uses more memory than
`distributed.worker.memory.target`, at which Dask itself begins to spill.

This needs aiopool's C extension. Dask creates its arrays with `numpy.ndarray(buffer=view)`, which refers to the
exporter of the buffer and releases the buffer at once. In pure Python a block that is still referenced when it is
released is never reused. That would be safe too, but gain nothing: each array would be received into fresh memory as
before, and cost an acquire in addition.

It also relies on something that Dask does not guarantee: that its TCP and TLS transports allocate memory with
`distributed.comm.tcp.host_array`. This module replaces that function while a worker runs, and cannot be imported if
Dask does not use it. Other transports are left alone.
"""

import math
from collections.abc import Callable
from typing import Any

from distributed import Worker
from distributed.comm import tcp
from distributed.system import MEMORY_LIMIT
from tornado.ioloop import PeriodicCallback

from .._buffer_pool import KIB, BufferPool
from .._native import native
from ._versions import check_names, check_version

if native is None:
    raise ImportError(
        "aiopool.integrations.distributed needs aiopool's C extension, which is not in use here: "
        "install aiopool where there is a C compiler, and unset AIOPOOL_NO_EXTENSIONS"
    )
check_version("distributed", "2025.1", "2026.8")
check_names("distributed", tcp.TCP.read, ["read_bytes_rw"])
check_names("distributed", tcp.read_bytes_rw, ["host_array"])

transport: Any = tcp  # `Any`, because its types do not include `host_array`

LEAST = 64 * KIB
"""Smaller buffers are cheaper from the C library."""

CLASSES = 65 * KIB, 65 * 1024 * KIB
"""The sizes of the smallest and the largest block. Dask receives an array of 2^k bytes together with a header, and at
most 64 MiB in one piece."""

FRACTION = 1 / 8
"""The fraction of a worker's memory limit that may be kept idle."""

IDLE = 5.0
"""The pool's idle timeout in seconds: idle buffers are freed after at most twice that time without a receive."""


class _Receiving:
    """The pool that the workers of this process receive into."""

    def __init__(self) -> None:
        self._fresh: Callable[[int], memoryview] = transport.host_array
        self._checks: dict[Worker, PeriodicCallback] = {}
        self.buffers: BufferPool | None = None

    @property
    def bound(self) -> int:
        """How many bytes may be kept idle."""
        limits = [worker.memory_manager.memory_limit or MEMORY_LIMIT for worker in self._checks]
        return math.floor(sum(limits) * FRACTION)

    def begin(self, worker: Worker) -> None:
        """Add a worker. Called on its loop."""
        interval = worker.memory_manager.memory_monitor_interval
        check = PeriodicCallback(lambda: self.relieve(worker), 1000 * interval)
        self._checks[worker] = check
        self.renew()
        check.start()

    def end(self, worker: Worker) -> None:
        """Remove a worker."""
        self._checks.pop(worker).stop()
        self.renew()

    def relieve(self, worker: Worker) -> None:
        """Free idle buffers if the process uses too much memory."""
        memory = worker.memory_manager
        if self.buffers is None or not memory.memory_limit or not memory.memory_target_fraction:
            return
        if worker.monitor.get_process_memory() > memory.memory_limit * memory.memory_target_fraction:
            self.buffers.clear()

    def renew(self) -> None:
        """Create a pool with the right limit. Buffers of the previous pool are freed when their arrays are gone."""
        if not self._checks:
            self.buffers = None
            transport.host_array = self._fresh
            return
        smallest, largest = CLASSES
        self.buffers = BufferPool(
            min_size=smallest,
            max_size=largest,
            max_idle_bytes=self.bound,
            idle_timeout=IDLE,
            name="distributed",
        )
        transport.host_array = _with(self.buffers, self._fresh)


def _with(buffers: BufferPool, fresh: Callable[[int], memoryview]) -> Callable[[int], memoryview]:
    """The replacement for Dask's `host_array`."""
    acquire = buffers.acquire

    def host_array(n: int) -> memoryview:
        return acquire(n) if n >= LEAST else fresh(n)

    return host_array


receiving = _Receiving()


def dask_setup(worker: Any) -> None:
    """Called by Dask when a worker has started.

    :raises TypeError: called for a scheduler or a nanny, as `dask scheduler --preload` and `--preload-nanny` do.
    """
    if not isinstance(worker, Worker):
        raise TypeError(
            f"aiopool.integrations.distributed is for workers, not for a {type(worker).__name__}: "
            "use it with `dask worker --preload` only"
        )
    receiving.begin(worker)


def dask_teardown(worker: Worker) -> None:
    """Called by Dask when a worker ends."""
    receiving.end(worker)
