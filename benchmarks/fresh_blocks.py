"""The cost of a block that the pool has to create, from 4 MiB up, beside `numpy.empty`; both are filled once.

A pool that has nothing idle creates a block, and most of its cost is the page faults of the first write. aiopool asks
for huge pages from 4 MiB up, as NumPy does. The result is how many times as long the block takes.

What could make the figures misleading: a process that has used much memory before, which its C library has kept. NumPy
then gets memory that is not fresh, and costs a fraction. So nothing else is measured here, a few are held at a time,
and everything runs once with each allocator (`_allocators.py` says why). With `--here` one process measures with its
own allocator, and shows times too.
"""

import asyncio
from itertools import repeat
from typing import Any

from _allocators import by_allocator
from _report import MIB, arguments, headline, name_of, plain_table, show, side_by_side, spread
from _timing import Candidate, Repeat, Results, Spread, measure, need

from aiopool import BufferPool

SIZES = [4 * MIB, 16 * MIB, 64 * MIB]

HELD = 4
"""How many are held before the first is dropped: otherwise the allocator would hand out the same memory again."""


def array(size: int) -> Repeat:
    content = b"x" * size

    async def work(n: int) -> None:
        numpy: Any = need("numpy")
        source = numpy.frombuffer(content, "u1")
        for _ in repeat(None, n):
            held = [numpy.empty(size, "u1") for _ in range(HELD)]
            for each in held:
                each[:] = source

    return work


def block(size: int) -> Repeat:
    content = b"x" * size

    async def work(n: int) -> None:
        pool = BufferPool(max_idle_bytes=0, max_size=size)
        for _ in repeat(None, n):
            held = [pool.acquire(size) for _ in range(HELD)]
            for view in held:
                view[:] = content

    return work


ARRAYS = {size: Candidate(f"numpy.empty, {name_of(size)}", array(size), operations=HELD) for size in SIZES}
BLOCKS = {size: Candidate(f"block, {name_of(size)}", block(size), operations=HELD) for size in SIZES}


def measure_here(rounds: int) -> dict[str, Any]:
    """Measure and show, in this process."""
    results = asyncio.run(measure([*ARRAYS.values(), *BLOCKS.values()], rounds))
    table = plain_table(headline(), "", "numpy.empty, µs", "block, µs", "times as long")
    for size in SIZES:
        times = [f"{results.time(each[size].name).median * 1e6:,.0f}" for each in (ARRAYS, BLOCKS)]
        table.add_row(name_of(size), *times, spread(ratio(results, size)))
    show(table)
    return {"ratios": {name_of(size): ratio(results, size)._asdict() for size in SIZES}}


def ratio(results: Results, size: int) -> Spread:
    return results.ratio(BLOCKS[size].name, ARRAYS[size].name)


def main() -> None:
    options = arguments(__doc__, rounds=15, quick=5, each_allocator=True)
    of_each = by_allocator(__file__, options, measure_here)
    if not options.here:
        ratios = {name: each["ratios"] for name, each in of_each.items()}
        show(headline(), side_by_side("a fresh block, filled once: time divided by that of numpy.empty", ratios))


if __name__ == "__main__":
    main()
