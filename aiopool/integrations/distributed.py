"""Dask workers that receive into pooled buffers.

    dask worker tcp://scheduler:8786 --preload aiopool.integrations.distributed

The problem: a worker receives each array from another worker into a fresh array. When the task that needed it is done
that memory is freed, and with the `MALLOC_TRIM_THRESHOLD_` that Dask's nanny sets it goes back to the system at once.
The next array is received into memory that the system has to supply and clear page by page. From about a megabyte on,
that costs more than receiving.

The way out: where Dask allocates memory to receive into, a worker with this preload takes a buffer from a `BufferPool`.
A NumPy array that Dask makes of it keeps it checked out for as long as the array, or a view of it, lives.

The trade-off: Dask counts what lies idle in the pool as unmanaged memory. So there is never more of it than an eighth
of the worker's memory limit, none some seconds after the last receive, and none while the process uses more memory than
`distributed.worker.memory.target` says, from which on Dask itself spills.

It takes aiopool's C extension. Dask makes its arrays with `numpy.ndarray(buffer=view)`, which keeps what exports a
buffer and releases the buffer at once. In pure Python a block that something still addresses when it is released is
freed in the end and never reused. So that would be safe too, and gain nothing: each array would be received into fresh
memory as before, with an acquire on top.

What Dask does not promise: that its TCP and TLS transports allocate with `distributed.comm.tcp.host_array`. This module
replaces that function while a worker runs, and is not imported at all where Dask does not use it. Other transports are
left alone.
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

transport: Any = tcp  # its types do not know that it uses `host_array`

LEAST = 64 * KIB
"""Less than this is cheaper from the C library."""

CLASSES = 65 * KIB, 65 * 1024 * KIB
"""The smallest and the largest block. Dask receives an array of 2^k bytes together with a header, and nothing larger
than 64 MiB in one piece."""

FRACTION = 1 / 8
"""How much of the memory limit of a worker may lie idle."""

IDLE = 5.0
"""Seconds without a receive after which what lies idle is on its way out; it is gone after twice as many."""


class _Receiving:
    """What the workers of this process receive into."""

    def __init__(self) -> None:
        self._fresh: Callable[[int], memoryview] = transport.host_array
        self._checks: dict[Worker, PeriodicCallback] = {}
        self.buffers: BufferPool | None = None

    @property
    def bound(self) -> int:
        """How many bytes may lie idle."""
        limits = [worker.memory_manager.memory_limit or MEMORY_LIMIT for worker in self._checks]
        return math.floor(sum(limits) * FRACTION)

    def begin(self, worker: Worker) -> None:
        """For one more worker, on whose loop this is called."""
        interval = worker.memory_manager.memory_monitor_interval
        check = PeriodicCallback(lambda: self.relieve(worker), 1000 * interval)
        self._checks[worker] = check
        self.renew()
        check.start()

    def end(self, worker: Worker) -> None:
        """For one worker less."""
        self._checks.pop(worker).stop()
        self.renew()

    def relieve(self, worker: Worker) -> None:
        """Give up what is idle if the process uses too much memory."""
        memory = worker.memory_manager
        if self.buffers is None or not memory.memory_limit or not memory.memory_target_fraction:
            return
        if worker.monitor.get_process_memory() > memory.memory_limit * memory.memory_target_fraction:
            self.buffers.clear()

    def renew(self) -> None:
        """Have a pool with the right bound. Buffers of the one before are freed when their arrays are gone."""
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
    """What takes the place of Dask's `host_array`."""
    acquire = buffers.acquire

    def host_array(n: int) -> memoryview:
        return acquire(n) if n >= LEAST else fresh(n)

    return host_array


receiving = _Receiving()


def dask_setup(worker: Any) -> None:
    """Called by Dask when a worker has started.

    :raises TypeError: it is called for a scheduler or nanny, which `--preload` and `--preload-nanny` also do.
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
