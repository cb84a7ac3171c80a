"""Two workers in one process: the bound, memory given back, TLS, and the end. Takes "tcp" or "tls"."""

import gc
import logging
import sys
import time

import numpy as np
import pytest
from distributed import Client, LocalCluster
from distributed.comm import tcp
from distributed.security import Security

from aiopool.integrations import distributed as integration

SIZE = 1_000_000
GIB = 1 << 30
stock = tcp.host_array
receiving = integration.receiving


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sums(client, count):
    """Move arrays from one worker to the other."""
    one, two = (worker.address for worker in client.cluster.workers.values())
    arrays = client.map(lambda number: np.full(SIZE, number, "u1"), range(count), workers=[one], pure=False)
    found = client.map(lambda array: int(array.sum()), arrays, workers=[two], pure=False)
    assert client.gather(found) == [SIZE * number for number in range(count)]


def idle():
    return receiving.buffers.stats().bytes_idle


def main(protocol):
    security = Security.temporary() if protocol == "tls" else None
    integration.IDLE = 0.2
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    options |= {"protocol": f"{protocol}://", "memory_limit": "4GiB", "preload": [integration.__name__]}
    with LocalCluster(security=security, **options) as cluster, Client(cluster) as client:
        client.cluster = cluster
        # The bound is the sum of the bounds of both workers.
        assert receiving.bound == 2 * 4 * GIB // 8
        assert tcp.host_array is not stock
        assert tcp.host_array(integration.LEAST - 1).obj is not tcp.host_array(integration.LEAST).obj

        sums(client, 20)
        assert receiving.buffers.stats().served >= 20
        until(lambda: (gc.collect(), receiving.buffers.stats().bytes_in_use == 0)[1])
        # While nothing is received, nothing stays idle.
        until(lambda: idle() == 0)

        # Under memory pressure nothing stays idle either, whatever the timeout.
        integration.IDLE = 1000
        receiving.renew()
        sums(client, 20)
        until(lambda: receiving.buffers.stats().bytes_in_use == 0)
        assert idle() > 0
        for worker in cluster.workers.values():
            worker.monitor.get_process_memory = lambda: int(0.61 * 4 * GIB)
        until(lambda: idle() == 0)

        # No more than the bound is idle.
        for worker in cluster.workers.values():
            worker.monitor.get_process_memory = lambda: 0
        integration.FRACTION = 5 * SIZE / (2 * 4 * GIB)
        receiving.renew()
        sums(client, 20)
        until(lambda: receiving.buffers.stats().bytes_in_use == 0)
        assert 0 < idle() <= 5 * SIZE
        integration.FRACTION = 1 / 8

        # A buffer that comes back to a replaced pool is freed.
        held = tcp.host_array(SIZE)
        before = receiving.buffers
        cluster.scale(1)
        until(lambda: receiving.bound == 4 * GIB // 8)
        assert receiving.buffers is not before
        held[:] = bytes(SIZE)

        # A worker whose heartbeat is under way while the cluster ends logs an error, with or without aiopool.
        logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
    assert tcp.host_array is stock
    assert receiving.buffers is None

    with pytest.raises(
        TypeError, match="is for workers, not for a Scheduler: use it with `dask worker --preload` only"
    ):
        integration.dask_setup(cluster.scheduler)


if __name__ == "__main__":
    main(sys.argv[1])
    print("ok")
