"""The cost of a cleanup cycle, and for how long freeing a large victim stops a loop.

The first table is the time of a call of `aiopool.cleanup()` on a running asyncio loop: with 10 idle objects in the
pool, and with 1,000,000. A cycle swaps references and touches no object, so the two must be the same. In both cases a
million objects are created and put right before, and the first pool keeps 10 of them, so that both calls find the CPU's
caches equally cold. One call takes a few microseconds, and one sample of it means little: look at the median.

The second table is the longest gap between two ticks of a loop that ticks every millisecond, while a second cycle
retires 1,000,000 small objects or 20,000 large ones and the loop frees them in slices. The large ones are put in the
order in which they were created, and shuffled, because glibc gives memory back from the top of its heap only. Other
rows have as many blocks of a `BufferPool`, which do not come from that heap; `list.clear()` on the same objects; and a
loop that frees nothing. Beside each gap is the work: the most CPU time that the loop's thread used from one tick to the
next.

What could make the figures misleading: a gap is the longest of its run, so it includes the time in which the system
gave the core to other threads; the rows that free nothing show how often that happens here, and the work leaves it out.
asyncio and uvloop wait in whole milliseconds, so a tick comes every one to two. Freeing in slices takes longer in
total, as the last column shows. And the cost of freeing large blocks depends on what else lies in the C library's heap:
each sample is taken in a process of its own, or it would show what the sample before left behind. The large objects
take 1.3 GB; if that much is not free, they have no row.
"""

import asyncio
import random
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from statistics import median
from time import perf_counter, thread_time
from typing import Any, NamedTuple

from _report import arguments, headline, plain_table, show, write_json
from _timing import UnavailableError, need, no_collections
from rich.table import Table

import aiopool
from aiopool import Pool

FEW, MANY = 10, 1_000_000
TICK = 0.001
QUIET_TICKS = 50

Sleep = Callable[[float], Awaitable[None]]
Main = Callable[[Sleep], Coroutine[Any, Any, "Gap"]]


class Private:
    """Put first, so it lies in the private slot, which is freed with the shard: when it is gone, everything is."""


def full_pool(load: "Load") -> tuple[Pool[object | None], weakref.ref[Private]]:
    objects: list[object] = [load.create() for _ in range(load.count - 1)]
    if load.shuffled:
        random.shuffle(objects)
    pool: Pool[object | None] = Pool()
    private = Private()
    pool.put(private)
    for obj in objects:
        pool.put(obj)
    return pool, weakref.ref(private)


# --- the cost of a cycle ---


class Cost(NamedTuple):
    """Seconds that two cleanup cycles in a row took."""

    #: the idle objects become the victim
    first: float
    #: the victim is retired
    second: float


async def cycle_cost(idle: int) -> Cost:
    pool: Pool[Private | None] = Pool(max_idle=idle)
    objects = [Private() for _ in range(MANY)]
    for obj in objects:
        pool.put(obj)
    cost = Cost(timed(aiopool.cleanup), timed(aiopool.cleanup))
    private = weakref.ref(objects[0])
    del obj, objects
    while private() is not None:
        await asyncio.sleep(0)
    return cost


def timed(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


async def cycle_costs(rounds: int) -> dict[int, list[Cost]]:
    costs: dict[int, list[Cost]] = {FEW: [], MANY: []}
    for _ in range(rounds):
        for idle in random.sample([FEW, MANY], 2):
            costs[idle].append(await cycle_cost(idle))
    return costs


# --- the gap that freeing causes ---


class Gap(NamedTuple):
    """The gaps of a ticking loop, in seconds."""

    longest: float
    #: the most CPU time that the loop's thread used between two ticks
    busiest: float
    #: from the cycle until everything was freed
    took: float


class Moment(NamedTuple):
    """A tick, in seconds."""

    clock: float
    #: CPU time of this thread
    worked: float

    @classmethod
    def now(cls) -> "Moment":
        return cls(perf_counter(), thread_time())


async def watch_ticks(sleep: Sleep, drop: Callable[[], object], gone: Callable[[], bool]) -> Gap:
    """Tick; drop; tick until all is gone, and a little longer."""
    quiet = QUIET_TICKS
    took = 0.0
    await sleep(TICK)
    ticks = [Moment.now()]
    drop()
    while quiet:
        await sleep(TICK)
        ticks.append(Moment.now())
        if gone():
            took = took or ticks[-1].clock - ticks[0].clock
            quiet -= 1
    steps = list(pairwise(ticks))
    return Gap(
        max(after.clock - before.clock for before, after in steps),
        max(after.worked - before.worked for before, after in steps),
        took,
    )


@dataclass(frozen=True)
class Load:
    """The objects that are freed."""

    count: int
    size: int
    #: put in another order than that in which they were created and lie in the heap
    shuffled: bool = False

    def __str__(self) -> str:
        return f"{self.count:,} bytearrays of {self.size:,} bytes{', shuffled' if self.shuffled else ''}"

    def blocks(self) -> str:
        """The same load in a buffer pool."""
        return f"{self.count:,} blocks of a BufferPool{', shuffled' if self.shuffled else ''}"

    def create(self) -> bytearray:
        return bytearray(self.size)


LOADS = [Load(MANY, 64), Load(20_000, 65_536), Load(20_000, 65_536, shuffled=True)]


async def drop_nothing(sleep: Sleep) -> Gap:
    return await watch_ticks(sleep, lambda: None, lambda: True)


async def drop_in_slices(load: Load, sleep: Sleep) -> Gap:
    pool, private = full_pool(load)
    aiopool.cleanup()
    gap = await watch_ticks(sleep, aiopool.cleanup, lambda: private() is None)
    del pool  # not before: a pool that is collected frees all its objects at once
    return gap


async def drop_blocks(load: Load, sleep: Sleep) -> Gap:
    """The same for blocks of a buffer pool, which are gone when the system has nine tenths of their memory back."""
    memory = need("psutil").Process().memory_info
    buffers = aiopool.BufferPool(max_idle_bytes=2 * load.count * load.size, idle_timeout=None)
    before = memory().rss
    views = [buffers.acquire(load.size) for _ in range(load.count)]
    for view in views:
        view[:] = bytes(load.size)
    if load.shuffled:
        random.shuffle(views)
    for i in range(load.count):
        views[i] = memoryview(b"")
    aiopool.cleanup()
    return await watch_ticks(sleep, aiopool.cleanup, lambda: memory().rss - before < load.count * load.size / 10)


async def drop_at_once(load: Load, sleep: Sleep) -> Gap:
    objects = [load.create() for _ in range(load.count)]
    if load.shuffled:
        random.shuffle(objects)
    return await watch_ticks(sleep, objects.clear, lambda: True)


def on_asyncio(main: Main) -> Gap:
    return asyncio.run(main(asyncio.sleep))


def on_uvloop(main: Main) -> Gap:
    with asyncio.Runner(loop_factory=need("uvloop").new_event_loop) as runner:
        return runner.run(main(asyncio.sleep))


def on_trio(main: Main) -> Gap:
    trio = need("trio")
    gap: Gap = trio.run(main, trio.sleep)
    return gap


LOOPS = {"asyncio": on_asyncio, "uvloop": on_uvloop, "trio": on_trio}


class Case(NamedTuple):
    """One row of the second table."""

    loop: str
    what: str
    main: Main


def cases() -> list[Case]:
    free = need("psutil").virtual_memory().available
    found = []
    for loop in LOOPS:
        found.append(Case(loop, "nothing", drop_nothing))
        for load in LOADS:
            if load.count * load.size * 1.2 < free:
                found.append(Case(loop, f"{load}, in slices", partial(drop_in_slices, load)))
                if load.size > 64:
                    found.append(Case(loop, f"{load.blocks()}, in slices", partial(drop_blocks, load)))
                found.append(Case(loop, f"{load}, at once", partial(drop_at_once, load)))
    return found


def measure_gap(case: Case) -> Gap:
    with no_collections():
        return LOOPS[case.loop](case.main)


def gaps(rounds: int) -> dict[Case, list[Gap]]:
    """A loop that is not installed, or a load that does not fit into memory, has no row."""
    found: dict[Case, list[Gap]] = {case: [] for case in cases()}
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        for _ in range(rounds):
            for case in random.sample(list(found), len(found)):
                try:
                    found[case].append(processes.submit(measure_gap, case).result())
                except UnavailableError:
                    del found[case]
    return found


# --- the results ---


def cost_table(costs: dict[int, list[Cost]]) -> Table:
    table = plain_table(headline(), "idle objects", "first cycle, us", "worst", "second cycle, us", "worst")
    for idle, samples in costs.items():
        table.add_row(
            f"{idle:,}",
            *(
                f"{figure(each) * 1e6:.1f}"
                for each in (list(cycle) for cycle in zip(*samples, strict=True))
                for figure in (median, max)
            ),
        )
    first, second = cost_ratios(costs)
    table.add_row("ratio", f"{first:.2f}", "", f"{second:.2f}", "")
    return table


def cost_ratios(costs: dict[int, list[Cost]]) -> Cost:
    """How many times as much a cycle costs with many idle objects as with few: the medians of each round's ratio."""
    pairs = list(zip(costs[MANY], costs[FEW], strict=True))
    return Cost(
        median(many.first / few.first for many, few in pairs),
        median(many.second / few.second for many, few in pairs),
    )


def gap_table(found: dict[Case, list[Gap]]) -> Table:
    headings = ("median gap", "worst gap", "median work", "worst work", "all gone after")
    table = plain_table("Longest gap between two ticks, and most work in one, in ms", "freed", *headings)
    for loop in LOOPS:
        table.add_section()
        for case, samples in found.items():
            if case.loop == loop:
                table.add_row(f"{loop}: {case.what}", *(f"{each * 1e3:.1f}" for each in summary(samples).values()))
    return table


def summary(samples: list[Gap]) -> dict[str, float]:
    longest = [gap.longest for gap in samples]
    busiest = [gap.busiest for gap in samples]
    return {
        "median gap": median(longest),
        "worst gap": max(longest),
        "median work": median(busiest),
        "worst work": max(busiest),
        "all gone after": median(gap.took for gap in samples),
    }


def main() -> None:
    options = arguments(__doc__, rounds=7, quick=2)
    with no_collections():
        costs = asyncio.run(cycle_costs(options.rounds))
    found = gaps(options.rounds)
    show(cost_table(costs), gap_table(found))
    write_json(
        options.json,
        {
            "rounds": options.rounds,
            "cycle cost in seconds": {str(idle): [cost._asdict() for cost in each] for idle, each in costs.items()},
            "cycle cost, ratio of many to few": cost_ratios(costs)._asdict(),
            "longest gap in seconds": {f"{case.loop}: {case.what}": summary(each) for case, each in found.items()},
        },
    )


if __name__ == "__main__":
    main()
