"""Two Dask workers that receive arrays from each other into pooled buffers.

To start such a worker by hand: `dask worker ADDRESS --preload aiopool.integrations.distributed`. Here a local cluster
does the same. One worker creates arrays, and the other adds them up. At the end the program prints what its pool did.

Needs the extra `distributed`, NumPy, and aiopool's C extension.
"""

from typing import Any

import numpy as np
from distributed import Client, LocalCluster

PRELOAD = "aiopool.integrations.distributed"
ARRAYS, SIZE = 40, 1_000_000


def pool_of_this_worker() -> tuple[int, int]:
    """How many buffers the pool of this worker has served, and how many of them it had to create."""
    from aiopool.integrations.distributed import receiving

    assert receiving.buffers is not None
    stats = receiving.buffers.stats()
    return stats.served, stats.created


def exchange(client: Any) -> tuple[int, int]:
    """Let the second worker add up arrays of the first one; return what its pool did."""
    first, second = client.scheduler_info()["workers"]
    for _ in range(3):
        arrays = client.map(np.ones, [SIZE // 8] * ARRAYS, workers=[first], pure=False)
        sums = client.map(np.sum, arrays, workers=[second], pure=False)
        if sum(client.gather(sums)) != ARRAYS * (SIZE // 8):
            raise RuntimeError("wrong sums")
        del arrays, sums
    served, created = client.run(pool_of_this_worker)[second]
    return served, created


def main() -> None:
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "1GiB", "dashboard_address": ":0"}
    with LocalCluster(preload=[PRELOAD], **options) as cluster, Client(cluster) as client:
        served, created = exchange(client)
    print(f"received {served} arrays of {SIZE} bytes")
    print(f"into buffers that were used before: {created < served}")


if __name__ == "__main__":
    main()
