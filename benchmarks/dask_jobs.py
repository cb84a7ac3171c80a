"""The cost of jobs that move arrays between two Dask workers, with and without pooled receive buffers.

Two worker processes with one thread each and a memory limit of 4 GiB, one job after another. For each way there is a
fresh cluster for each job, and the job runs several times in it. The result is the CPU time of both workers for each
run, divided by that of stock Dask in the same round, and the peak of their resident memory in MiB.

- stock: as Dask starts its workers, with `MALLOC_TRIM_THRESHOLD_=65536` in their environment;
- untrimmed: the same without that variable;
- tuned: the same with that variable at 1 GiB and `MALLOC_MMAP_THRESHOLD_` at 32 MiB;
- jemalloc: the same with `LD_PRELOAD` of jemalloc, where it is installed;
- pooled: stock with `aiopool.integrations.distributed`.

What could make the figures misleading: the ratios include the work on the arrays, and Dask's own work. Two workers on
one machine receive over loopback. The first run of a job fills the pool; it does not count.
"""

import logging
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import dask
import dask.array as da
import numpy as np
from _allocators import allocators
from _report import MIB, arguments, headline, plain_table, show, spread, write_json
from _timing import Spread
from distributed import Client, LocalCluster, wait

STOCK = dict(dask.config.get("distributed.nanny.pre-spawn-environ"))
UNTRIMMED = {name: value for name, value in STOCK.items() if name != "MALLOC_TRIM_THRESHOLD_"}
Job = Callable[[Any], float]
"""Runs on a cluster, and returns the CPU time that it took the workers, in seconds."""

# As the documentation recommends it: more than what the other benchmarks keep, because a worker has more memory.
TUNED = {**STOCK, "MALLOC_TRIM_THRESHOLD_": 1 << 30, "MALLOC_MMAP_THRESHOLD_": 1 << 25}
PRELOAD = "aiopool.integrations.distributed"

WAYS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "stock": (STOCK, []),
    "untrimmed": (UNTRIMMED, []),
    "tuned": (TUNED, []),
    **{each.name: ({**STOCK, **each.environment}, []) for each in allocators() if each.name == "jemalloc"},
    "pooled": (STOCK, [PRELOAD]),
}


def used() -> tuple[float, float]:
    """Seconds of CPU time of this process, and its peak in MiB."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def cpu_time(client: Any) -> float:
    """Seconds of CPU time of all workers."""
    seconds: float = sum(cpu for cpu, _ in client.run(used).values())
    return seconds


def filled(size: int, number: int) -> Any:
    return np.full(size, number % 251, dtype="u1")


def ends(*arrays: Any) -> int:
    return sum(int(array[0]) + int(array[-1]) for array in arrays)


def fetch(count: int, size: int) -> Job:
    """One worker creates arrays, and the other one gets four at a time. Only the second part is measured."""

    def job(client: Any) -> float:
        one, two = client.scheduler_info()["workers"]
        arrays = client.map(filled, [size] * count, range(count), workers=[one], pure=False)
        wait(arrays)
        before = cpu_time(client)
        found = [client.submit(ends, *arrays[i : i + 4], workers=[two], pure=False) for i in range(0, count, 4)]
        if sum(client.gather(found)) != sum(2 * (number % 251) for number in range(count)):
            sys.exit("wrong arrays")
        return cpu_time(client) - before

    return job


def total(array: Any) -> Job:
    """Compute the sum of an array, which is twice its size."""

    def job(client: Any) -> float:
        before = cpu_time(client)
        if client.compute(array.sum()).result() != 2 * array.size:
            sys.exit("wrong sum")
        return cpu_time(client) - before

    return job


SQUARE = da.ones((6000, 6000), chunks=(1000, 1000))
COLUMNS = da.ones((6000, 6000), chunks=(6000, 500))

JOBS = {
    "fetch 256 x 1 MiB": fetch(256, MIB),
    "fetch 64 x 8 MiB": fetch(64, 8 * MIB),
    "(x + x.T).sum()": total(SQUARE + SQUARE.T),
    "rechunk": total(COLUMNS.rechunk((500, 6000)) + 1),
}


@contextmanager
def cluster(environment: dict[str, Any], preload: list[str]) -> Iterator[Any]:
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit="4GiB", preload=preload, dashboard_address=":0"
        ) as workers,
        Client(workers) as client,
    ):
        yield client


def measure(way: str, job: Job, rounds: int) -> tuple[list[float], float]:
    """Seconds of CPU time of both workers, one entry a round, and the sum of their peaks in MiB."""
    with cluster(*WAYS[way]) as client:
        job(client)
        seconds = [job(client) for _ in range(rounds)]
        peak = sum(peak for _, peak in client.run(used).values())
    return seconds, peak


def main() -> None:
    args = arguments(__doc__, rounds=7, quick=3)
    others = [way for way in WAYS if way != "stock"]
    times = plain_table("CPU time of both workers", "job", "stock, ms", *others)
    memory = plain_table("Peak memory of both workers, MiB", "job", *WAYS)
    figures = []
    for name, job in JOBS.items():
        results = {way: measure(way, job, args.rounds) for way in WAYS}
        stock = results["stock"][0]
        ratios = [spread(Spread.of_ratios(results[way][0], stock)) for way in others]
        times.add_row(name, f"{median(stock) * 1e3:,.0f}", *ratios)
        memory.add_row(name, *[f"{peak:,.0f}" for _, peak in results.values()])
        print(name, *ratios, file=sys.stderr)
        figures.append({"job": name, **{way: {"seconds": s, "peak": p} for way, (s, p) in results.items()}})
    show(headline(), times, memory)
    write_json(args.json, {"jobs": figures})


if __name__ == "__main__":
    logging.getLogger("distributed.shuffle").setLevel(logging.ERROR)  # it warns although nothing is wrong
    main()
