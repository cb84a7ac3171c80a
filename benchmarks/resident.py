"""Does memory return to the system after a burst, without any action of the program?

10,000 objects of 64 KiB are in use at once and then put back. `idle_timeout` is 0.2 seconds, the garbage collector is
off, and the loop only sleeps. The program prints the resident sizes at the peak and after two cleanup cycles, divided
by that before the burst.

What could make the figures misleading: glibc returns memory only from the top of its heap, so the program returns the
rest with `malloc_trim`. Without that, some of the freed memory stays resident until it is used again. Linux only.
"""

import asyncio
import ctypes
import gc
from collections.abc import Callable, Coroutine
from statistics import median
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]
import uvloop
from _report import arguments, headline, plain_table, show, write_json

import aiopool

OBJECTS = 10_000
SIZE = 64 * 1024

Run = Callable[[Coroutine[Any, Any, "Burst"]], "Burst"]
RUNS: dict[str, Run] = {"asyncio": asyncio.run, "uvloop": uvloop.run}


class Burst(NamedTuple):
    """Resident sizes, as multiples of that before the burst."""

    peak: float
    after: float


def resident() -> int:
    """The resident size in bytes, without the free memory that the allocator keeps."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


async def burst() -> Burst:
    """One burst, from an empty pool to an empty pool."""
    pool = aiopool.Pool(lambda: bytearray(b"x") * SIZE, idle_timeout=0.2)
    before = resident()
    in_use = [pool.get() for _ in range(OBJECTS)]
    while in_use:
        pool.put(in_use.pop())
    peak = resident()
    while aiopool._core.freeing._queue or pool.stats().idle:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.05)
    return Burst(peak / before, resident() / before)


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, rounds=3, quick=1)
    gc.disable()
    measured = {loop: [run(burst()) for _ in range(options.rounds)] for loop, run in RUNS.items()}
    table = plain_table("resident size, divided by that before the burst; medians", "loop", "at the peak", "after")
    for loop, bursts in measured.items():
        table.add_row(loop, f"{median(each.peak for each in bursts):.1f}", f"{median(b.after for b in bursts):.2f}")
    show(headline(), table)
    write_json(options.json, {"rounds": options.rounds, "bursts": measured})


if __name__ == "__main__":
    main()
