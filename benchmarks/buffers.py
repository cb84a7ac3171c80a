"""The cost of a view from a `BufferPool`, beside a fresh bytearray, from 64 bytes to 16 MiB.

Measured inside a running asyncio loop, all in one run (`_timing.py` says how). One operation is an acquire and the drop
of the view, or `bytearray(n)` and its drop. The result is the cost of the fresh one divided by that of the pooled one;
below 1.00 pooling loses. There are three ways, because the cost of a fresh buffer depends on its use:

- untouched, one at a time;
- filled: all bytes are written once, by a copy. This is nearer to what a program does, and the copy is the same for
  both;
- 100 in flight: a hundred are held before the first is dropped, so that malloc cannot hand out the same warm memory
  again and again, and all but one of the pool's go through the shared list.

All of that runs once with each allocator (`_allocators.py` says why), and the tables have them side by side. Other
tables have the less common paths, for one size; the extra cost of `wipe=True`; and that of recording the places that
acquire. With `--here` one process measures with its own allocator, and shows times too.

What could make the figures misleading: one thread works alone. The cost varies even with one allocator: glibc gives
large buffers back to the system at once until some have been freed (its threshold moves, up to 32 MiB), and then keeps
them, but clears them with memset. And a fresh bytearray is zero; a pooled buffer is zero only with `wipe`.
"""

import asyncio
from itertools import repeat
from typing import Any

from _allocators import by_allocator
from _report import KIB, MIB, arguments, headline, name_of, plain_table, show, side_by_side, spread
from _timing import IN_FLIGHT, Candidate, Repeat, Results, Spread, measure
from rich.table import Table

from aiopool import BufferPool, cleanup

SIZES = [64, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB]

PATH_SIZE = 4 * KIB
"""The size for the less common paths."""


def new_pool(*, wipe: bool = False, sample_every: int | None = 1024) -> BufferPool:
    """A pool that keeps everything that a benchmark has in flight."""
    return BufferPool(max_idle_bytes=1 << 40, idle_timeout=None, wipe=wipe, sample_every=sample_every)


# --- fresh and pooled ---


def fresh(size: int) -> Repeat:
    async def work(n: int) -> None:
        for _ in repeat(None, n):
            bytearray(size)

    return work


def pooled(size: int, *, wipe: bool = False) -> Repeat:
    async def work(n: int) -> None:
        pool = new_pool(wipe=wipe)
        for _ in repeat(None, n):
            pool.acquire(size)

    return work


def fresh_filled(size: int) -> Repeat:
    content = b"x" * size

    async def work(n: int) -> None:
        for _ in repeat(None, n):
            memoryview(bytearray(size))[:] = content

    return work


class Warm:
    """A pool that has created all its blocks before it is timed: a sample of large buffers is only a few of them."""

    # One pool for all, so that there is never more than one in memory.
    pool = new_pool()

    def __init__(self, size: int, held: int) -> None:
        self.size = size
        self.held = held
        self.content = b"x" * size

    async def prepare(self, n: int) -> None:
        Warm.pool = new_pool()
        [self.pool.acquire(self.size) for _ in range(self.held)].clear()

    async def fill(self, n: int) -> None:
        pool, size, content = self.pool, self.size, self.content
        for _ in repeat(None, n):
            pool.acquire(size)[:] = content

    async def hold_many(self, n: int) -> None:
        pool, size = self.pool, self.size
        for _ in repeat(None, n):
            [pool.acquire(size) for _ in range(IN_FLIGHT)].clear()


def pooled_filled(size: int) -> Candidate:
    warm = Warm(size, 1)
    return Candidate(f"acquire, fill, drop, {name_of(size)}", warm.fill, warm.prepare)


def fresh_in_flight(size: int) -> Repeat:
    async def work(n: int) -> None:
        for _ in repeat(None, n):
            [bytearray(size) for _ in range(IN_FLIGHT)].clear()

    return work


def pooled_in_flight(size: int) -> Candidate:
    warm = Warm(size, IN_FLIGHT)
    name = f"acquire + drop, {IN_FLIGHT} in flight, {name_of(size)}"
    return Candidate(name, warm.hold_many, warm.prepare, IN_FLIGHT)


# --- the other paths ---


async def off_loop(n: int) -> None:
    """In a worker thread, which is started once."""

    def work() -> None:
        pool = new_pool()
        for _ in repeat(None, n):
            pool.acquire(PATH_SIZE)

    await asyncio.to_thread(work)


class Stealing:
    """Acquires that find nothing in their own shard: another loop's thread has dropped all views."""

    def __init__(self) -> None:
        self.pool = new_pool()
        self.held: list[memoryview] = []

    async def prepare(self, n: int) -> None:
        self.held.clear()
        self.pool.clear()
        await asyncio.to_thread(asyncio.run, self.drop_elsewhere(n))

    async def drop_elsewhere(self, n: int) -> None:
        # One more: the block in the private slot can't be stolen.
        held = [self.pool.acquire(PATH_SIZE) for _ in range(n + 1)]
        held.clear()

    async def repeat(self, n: int) -> None:
        acquire, keep = self.pool.acquire, self.held.append
        for _ in repeat(None, n):
            keep(acquire(PATH_SIZE))


class VictimHits(Stealing):
    """Acquires after a cleanup cycle: all idle blocks lie in the victim."""

    async def prepare(self, n: int) -> None:
        self.held.clear()
        self.pool.clear()
        await self.drop_elsewhere(n)
        cleanup()


class Misses(Stealing):
    """Acquires that find nothing, and create blocks."""

    async def prepare(self, n: int) -> None:
        self.held.clear()
        self.pool.clear()


async def create_and_free(n: int) -> None:
    """In a pool that keeps nothing, so that the allocator reuses the memory of the last block."""
    pool = BufferPool(max_idle_bytes=0, idle_timeout=None)
    for _ in repeat(None, n):
        pool.acquire(PATH_SIZE)


# --- recording the places that acquire ---


def recorded(sample_every: int | None) -> Repeat:
    async def work(n: int) -> None:
        pool = new_pool(sample_every=sample_every)
        for _ in repeat(None, n):
            pool.acquire(PATH_SIZE)

    return work


# --- all of it ---


FRESH = {size: Candidate(f"bytearray, {name_of(size)}", fresh(size)) for size in SIZES}
POOLED = {size: Candidate(f"acquire + drop, {name_of(size)}", pooled(size)) for size in SIZES}
WIPED = {size: Candidate(f"with wipe, {name_of(size)}", pooled(size, wipe=True)) for size in SIZES}
FRESH_FILLED = {size: Candidate(f"bytearray, filled, {name_of(size)}", fresh_filled(size)) for size in SIZES}
POOLED_FILLED = {size: pooled_filled(size) for size in SIZES}
FRESH_MANY = {
    size: Candidate(f"bytearray, {IN_FLIGHT} in flight, {name_of(size)}", fresh_in_flight(size), operations=IN_FLIGHT)
    for size in SIZES
}
POOLED_MANY = {size: pooled_in_flight(size) for size in SIZES}
PAIRS = {"untouched": (FRESH, POOLED), "filled": (FRESH_FILLED, POOLED_FILLED), "in flight": (FRESH_MANY, POOLED_MANY)}

stealing, victim_hits, misses = Stealing(), VictimHits(), Misses()
PATHS = [
    Candidate("acquire + drop off-loop", off_loop),
    Candidate("acquire that steals", stealing.repeat, stealing.prepare),
    Candidate("acquire from the victim", victim_hits.repeat, victim_hits.prepare),
    Candidate("acquire that misses + drop, nothing kept", create_and_free),
    Candidate("acquire that misses, all held", misses.repeat, misses.prepare),
]

RECORDING = [
    Candidate("recording none", recorded(None)),
    Candidate("recording one in 1,024, as by default", recorded(1024)),
    Candidate("recording each", recorded(1)),
]


def gain(results: Results, way: str, size: int) -> Spread:
    """The cost of a fresh buffer divided by that of a pooled one."""
    fresh, pooled = PAIRS[way]
    return results.ratio(fresh[size].name, pooled[size].name)


def main_table(results: Results) -> Table:
    table = plain_table(
        f"{headline()}\ncost of a fresh bytearray, divided by that of an acquire + drop",
        "",
        "bytearray, ns",
        "acquire + drop, ns",
        "untouched",
        "filled",
        f"{IN_FLIGHT} in flight",
    )
    for size in SIZES:
        table.add_row(
            name_of(size),
            nanoseconds(results.time(FRESH[size].name).median),
            nanoseconds(results.time(POOLED[size].name).median),
            *(spread(gain(results, way, size)) for way in PAIRS),
        )
    return table


def path_table(results: Results) -> Table:
    usual = POOLED[PATH_SIZE].name
    table = plain_table(f"the other paths, {name_of(PATH_SIZE)}", "", "ns", "in acquire + drops", "in bytearrays")
    for candidate in [POOLED[PATH_SIZE], *PATHS]:
        table.add_row(
            candidate.name,
            nanoseconds(results.time(candidate.name).median),
            spread(results.ratio(candidate.name, usual)),
            spread(results.ratio(candidate.name, FRESH[PATH_SIZE].name)),
        )
    table.add_section()
    for size, candidate in WIPED.items():
        table.add_row(
            candidate.name,
            nanoseconds(results.time(candidate.name).median),
            spread(results.ratio(candidate.name, POOLED[size].name)),
            spread(results.ratio(candidate.name, FRESH[size].name)),
        )
    return table


def recording_table(results: Results) -> Table:
    title = f"recording the places that acquire, {name_of(PATH_SIZE)}"
    table = plain_table(title, "", "ns", "times as long as without")
    for candidate in RECORDING:
        table.add_row(
            candidate.name,
            nanoseconds(results.time(candidate.name).median),
            spread(results.ratio(candidate.name, RECORDING[0].name)),
        )
    return table


def nanoseconds(seconds: float) -> str:
    return f"{seconds * 1e9:,.0f}"


def verdict(results: Results) -> str:
    """Where pooling loses, in words."""
    lines = []
    for way in PAIRS:
        loses = [name_of(size) for size in SIZES if gain(results, way, size).median < 1]
        lines.append(f"- {way}: {'at ' + ', '.join(loses) if loses else 'at no size'}")
    lines.append("- where the buffer must be zero at the start, and is so small that clearing it is most of its cost")
    return "Where pooling loses:\n" + "\n".join(lines)


def figures(results: Results) -> dict[str, Any]:
    usual = POOLED[PATH_SIZE].name
    return {
        "seconds": {name: results.time(name)._asdict() for name in results.seconds},
        "gain": {way: {name_of(size): gain(results, way, size)._asdict() for size in SIZES} for way in PAIRS},
        "paths": {each.name: results.ratio(each.name, usual)._asdict() for each in PATHS},
        "recording": {each.name: results.ratio(each.name, RECORDING[0].name)._asdict() for each in RECORDING},
    }


def measure_here(rounds: int) -> dict[str, Any]:
    """Measure and show, in this process."""
    candidates = [each for pair in PAIRS.values() for way in pair for each in way.values()]
    candidates += [*PATHS, *WIPED.values(), *RECORDING]
    results = asyncio.run(measure(candidates, rounds))
    show(main_table(results), path_table(results), recording_table(results), verdict(results))
    return figures(results)


def show_side_by_side(of_each: dict[str, dict[str, Any]]) -> None:
    """Show the figures, with a column for each allocator."""
    show(
        headline(),
        *(
            side_by_side(
                f"{way}: cost of a fresh bytearray, divided by that of an acquire + drop",
                {name: each["gain"][way] for name, each in of_each.items()},
            )
            for way in PAIRS
        ),
        side_by_side(
            f"the other paths, {name_of(PATH_SIZE)}, in acquire + drops",
            {name: each["paths"] for name, each in of_each.items()},
        ),
        side_by_side(
            f"recording the places that acquire, {name_of(PATH_SIZE)}, in acquire + drops without",
            {name: each["recording"] for name, each in of_each.items()},
        ),
    )


def main() -> None:
    options = arguments(__doc__, rounds=30, quick=5, each_allocator=True)
    of_each = by_allocator(__file__, options, measure_here)
    if not options.here:
        show_side_by_side(of_each)


if __name__ == "__main__":
    main()
