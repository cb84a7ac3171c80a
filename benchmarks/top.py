"""For how long `python -m aiopool top` holds up the loop of another process.

It needs Linux, CPython 3.14 or later, and permission to debug other processes.

That process has some pools and a loop that waits. So all CPU time of its main thread is the cost of a look: to
interrupt the wait, to start the script, to read the pools, to write the file, and the loop's turn that follows. Linux
counts it for each thread, so nothing is prepared in the process. Many pools take several looks, and each holds up the
loop separately.

What could make the figures misleading: CPU time leaves out the time in which the main thread waits: for a disk, if the
folder for temporary files is on one and not in memory, and on a busy machine for a core.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _report import arguments, headline, plain_table, show, spread, write_json
from _timing import Spread

from aiopool._top.process import LookError, Process

CASES = {"3 pools, 3 buffer pools": (3, 3), "100 pools": (100, 0), "100 buffer pools": (0, 100)}

SERVICE = """
import asyncio, sys
from aiopool import BufferPool, Pool

# Without a timeout no timer runs, which would be counted.
pools = [Pool(bytearray, idle_timeout=None, name=f"pool {number}") for number in range(int(sys.argv[1]))]
buffers = [BufferPool(idle_timeout=None, name=f"buffers {number}") for number in range(int(sys.argv[2]))]


async def main():
    for pool in pools:
        pool.put(pool.get())
    for each in buffers:
        for size in (1000, 5000, 70_000):
            each.acquire(size)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
"""


def main() -> None:
    options = arguments(__doc__, rounds=30, quick=5)
    table = plain_table(
        f"{headline()}\nMilliseconds for which a look holds up the loop", "the process has", "looks", "each", "longest"
    )
    found: dict[str, list[list[float]]] = {}
    for name, (pools, buffers) in CASES.items():
        try:
            with service(pools, buffers) as pid, Process(pid) as process:
                found[name] = [looks_at(process) for _ in range(options.rounds)]
        except LookError as error:
            sys.exit(str(error))
        each = [milliseconds for looks in found[name] for milliseconds in looks]
        table.add_row(name, str(len(found[name][0])), spread(Spread.of(each)), f"{max(each):.2f}")
    show(table)
    write_json(options.json, {"milliseconds": found})


@contextmanager
def service(pools: int, buffers: int) -> Iterator[int]:
    """Run a process whose loop waits; its process id."""
    command = [sys.executable, "-c", SERVICE, str(pools), str(buffers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


def looks_at(process: Process) -> list[float]:
    """Milliseconds that each look took until all pools were read."""
    looks = []
    start, left = 0, 1
    while left > 0:
        before = used(process.pid)
        part = process._look_at_some(start)
        looks.append(1e3 * (used(process.pid) - before))
        start, left = start + len(part["pools"]), part["left"]
    return looks


def used(pid: int) -> float:
    """Wait until the main thread sleeps; return its CPU time in seconds."""
    task = Path(f"/proc/{pid}/task/{pid}")
    while (task / "stat").read_text().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.001)
    return int((task / "schedstat").read_text().split()[0]) / 1e9


if __name__ == "__main__":
    main()
