"""What a get and a put cost, beside everything one could use instead.

Measured inside a running asyncio loop, all in one run (`_timing.py` tells how): aiopool's common case and its less
common paths, the standard library's containers, making the object anew each time, and the pools found on PyPI. The
result is the ratio to `list.pop()` + `list.append()`, the cheapest way to keep objects that Python has; a second one
is the ratio to aiopool's get + put.

Two things decide what a get + put costs in a program, and each has its row: how many objects are in flight at once
(one lies in the private slot; the others go through the shared list and its lock), and in what context the task runs (a
task whose context was copied before anything pinned there has to find its processor first).

What would make the figures misleading: one thread works alone, so no row shows what threads cost each other. A fresh
bytearray is freed before the next is made, so malloc hands out the same warm memory every time; in a server that holds
many at once it is dearer. And a fresh one is full of zeros, a pooled one of whatever the last user wrote: who must
clear it pays for that too.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from itertools import repeat
from queue import LifoQueue, SimpleQueue
from typing import Any

import _other_pools
from _report import arguments, headline, plain_table, show, write_json
from _timing import IN_FLIGHT, Candidate, Repeat, Results, measure
from rich.table import Table

import aiopool
from aiopool import Pool, _debug

TASKS = 1000

# --- the two that all others are compared with ---


async def list_pair(n: int) -> None:
    items = [object()]
    for _ in repeat(None, n):
        obj = items.pop()
        items.append(obj)


async def get_put(n: int) -> None:
    pool = Pool(object)
    for _ in repeat(None, n):
        obj = pool.get()
        pool.put(obj)


async def empty_loop(n: int) -> None:
    for _ in repeat(None, n):
        pass


# --- the same in the standard library ---


async def deque_pair(n: int) -> None:
    items = deque([object()])
    for _ in repeat(None, n):
        obj = items.pop()
        items.append(obj)


async def simple_queue(n: int) -> None:
    queue: SimpleQueue[object] = SimpleQueue()
    queue.put(object())
    for _ in repeat(None, n):
        obj = queue.get_nowait()
        queue.put(obj)


async def lifo_queue(n: int) -> None:
    queue: LifoQueue[object] = LifoQueue()
    queue.put(object())
    for _ in repeat(None, n):
        obj = queue.get(block=False)
        queue.put(obj)


def fresh_bytearray(size: int) -> Repeat:
    async def make(n: int) -> None:
        for _ in repeat(None, n):
            bytearray(size)

    return make


# --- the other paths through a pool ---


async def borrow(n: int) -> None:
    pool = Pool(object)
    for _ in repeat(None, n):
        with pool.borrow():
            pass


async def with_reset(n: int) -> None:
    pool: Pool[list[object]] = Pool(list, reset=list.clear)
    for _ in repeat(None, n):
        obj = pool.get()
        pool.put(obj)


async def debug_mode(n: int) -> None:
    """On for this row only: what all other rows of aiopool show is the debug mode off, after it was on."""
    _debug.turn_on()
    try:
        await get_put(n)
    finally:
        _debug.turn_off()


async def many_in_flight(n: int) -> None:
    pool = Pool(object)
    for _ in repeat(None, n):
        for obj in [pool.get() for _ in range(IN_FLIGHT)]:
            pool.put(obj)


async def many_in_flight_list(n: int) -> None:
    items = [object() for _ in range(IN_FLIGHT)]
    for _ in repeat(None, n):
        for obj in [items.pop() for _ in range(IN_FLIGHT)]:
            items.append(obj)


async def miss(n: int) -> None:
    pool = Pool(object)
    for _ in repeat(None, n):
        pool.get()


async def off_loop(n: int) -> None:
    """In a worker thread, with the loop's context, as `asyncio.to_thread` gives it. The way there is paid once."""

    def work() -> None:
        pool = Pool(object)
        for _ in repeat(None, n):
            obj = pool.get()
            pool.put(obj)

    await asyncio.to_thread(work)


class Stealing:
    """Gets that find nothing of their own: another loop's thread has put all there is."""

    def __init__(self) -> None:
        self.pool: Pool[object | None] = Pool()

    async def prepare(self, n: int) -> None:
        await asyncio.to_thread(asyncio.run, self.put_elsewhere(n))

    async def put_elsewhere(self, n: int) -> None:
        # One more: the private slot's object can't be stolen.
        for _ in range(n + 1):
            self.pool.put(object())

    async def repeat(self, n: int) -> None:
        pool = self.pool
        for _ in repeat(None, n):
            pool.get()


class VictimHits:
    """Gets after a cleanup cycle and before the first put: all there is lies in the victim."""

    def __init__(self) -> None:
        self.pool: Pool[object | None] = Pool()

    async def prepare(self, n: int) -> None:
        for _ in range(n):
            self.pool.put(object())
        aiopool.cleanup()

    async def repeat(self, n: int) -> None:
        pool = self.pool
        for _ in repeat(None, n):
            pool.get()


# --- a thousand tasks ---


async def run_tasks(n: int, work: Callable[[], Coroutine[Any, Any, None]], context: Context) -> None:
    """`n` times a thousand tasks, each in a copy of `context`: no two pins in a row meet the same one."""
    loop = asyncio.get_running_loop()
    for _ in repeat(None, n):
        for task in [loop.create_task(work(), context=context.copy()) for _ in range(TASKS)]:
            await task


async def bare_tasks(n: int) -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    await run_tasks(n, work, copy_context())


async def list_tasks(n: int) -> None:
    items = [object()]

    async def work() -> None:
        obj = items.pop()
        items.append(obj)
        await asyncio.sleep(0)

    await run_tasks(n, work, copy_context())


def pool_tasks(context: Callable[[], Context]) -> Repeat:
    async def tasks(n: int) -> None:
        pool = Pool(object)
        pool.put(pool.get())  # from here on this context has a processor bound in it

        async def work() -> None:
            obj = pool.get()
            pool.put(obj)
            await asyncio.sleep(0)

        await run_tasks(n, work, context())

    return tasks


# --- all of it ---

LIST = Candidate("list.pop + append", list_pair)
OURS = Candidate("aiopool get + put", get_put)
LIST_MANY = Candidate(f"list.pop + append, {IN_FLIGHT} in flight", many_in_flight_list, operations=IN_FLIGHT)
OURS_MANY = Candidate(f"aiopool get + put, {IN_FLIGHT} in flight", many_in_flight, operations=IN_FLIGHT)
FRESH = [Candidate(f"a fresh bytearray of {kib:,} KiB", fresh_bytearray(kib * 1024)) for kib in (1, 4, 64, 256, 1024)]

stealing, victim_hits = Stealing(), VictimHits()

SECTIONS = [
    [OURS, LIST, Candidate("empty loop (part of every row)", empty_loop)],
    [OURS_MANY, LIST_MANY, *_other_pools.MANY_IN_FLIGHT],
    [
        Candidate("collections.deque", deque_pair),
        Candidate("queue.SimpleQueue", simple_queue),
        Candidate("queue.LifoQueue", lifo_queue),
    ],
    FRESH,
    _other_pools.CANDIDATES,
    [
        Candidate("aiopool: with borrow()", borrow),
        Candidate("aiopool: get + put with reset", with_reset),
        Candidate("aiopool: get + put in debug mode", debug_mode),
        Candidate("aiopool: get + put off-loop", off_loop),
        Candidate("aiopool: get that steals", stealing.repeat, stealing.prepare),
        Candidate("aiopool: get from the victim", victim_hits.repeat, victim_hits.prepare),
        Candidate("aiopool: get that misses, new=object", miss),
    ],
]

BARE_TASK = Candidate("only yields", bare_tasks, operations=TASKS)
LIST_TASK = Candidate("list.pop + append", list_tasks, operations=TASKS)
TASK_CANDIDATES = [
    BARE_TASK,
    LIST_TASK,
    Candidate("aiopool, in a context with a processor", pool_tasks(copy_context), operations=TASKS),
    Candidate("aiopool, in a context without", pool_tasks(Context), operations=TASKS),
]


# --- what came out ---


def main_table(results: Results) -> Table:
    table = plain_table(headline(), "", "in ns", "in list pairs", "quartiles", "in get + puts")
    for section in SECTIONS:
        for candidate in section:
            table.add_row(candidate.name, *cells(results, candidate.name))
        table.add_section()
    return table


def cells(results: Results, name: str) -> list[str]:
    if name in results.unavailable:
        return ["", "", results.unavailable[name]]
    to_list = results.ratio(name, LIST.name)
    return [
        nanoseconds(results.time(name).median),
        f"{to_list.median:.2f}",
        f"{to_list.low:.2f} to {to_list.high:.2f}",
        f"{results.ratio(name, OURS.name).median:.2f}",
    ]


def task_table(results: Results) -> Table:
    title = f"{TASKS:,} tasks at a time, each doing this once and yielding"
    table = plain_table(title, "", "ns a task", "in bare tasks", "ns over bare", "quartiles")
    for candidate in TASK_CANDIDATES:
        over = results.over(candidate.name, BARE_TASK.name)
        table.add_row(
            candidate.name,
            nanoseconds(results.time(candidate.name).median),
            f"{results.ratio(candidate.name, BARE_TASK.name).median:.2f}",
            nanoseconds(over.median),
            f"{nanoseconds(over.low)} to {nanoseconds(over.high)}",
        )
    return table


def nanoseconds(seconds: float) -> str:
    return f"{seconds * 1e9:,.0f}"


def verdict(results: Results) -> str:
    """Where pooling loses, in words."""
    return "Where pooling loses:\n" + "\n".join(
        f"- {line}"
        for line in (
            against_list(results),
            against_fresh(results),
            in_flight(results),
        )
    )


def against_list(results: Results) -> str:
    ratio = results.ratio(OURS.name, LIST.name).median
    return (
        f"A get + put costs {ratio:.2f} list pairs. Where one thread does everything and nothing need ever be given "
        "back, use a list."
    )


def against_fresh(results: Results) -> str:
    ratios = {
        each.name.removeprefix("a fresh bytearray of "): results.ratio(each.name, OURS.name).median for each in FRESH
    }
    sizes = ", ".join(f"{ratio:.2f} for {size}" for size, ratio in ratios.items())
    loses = [size for size, ratio in ratios.items() if ratio < 1]
    advice = f"Do not pool bytearrays of {' or '.join(loses)}. " if loses else ""
    return f"A fresh bytearray costs, in get + puts, {sizes}. {advice}Clearing a pooled one comes on top."


def in_flight(results: Results) -> str:
    cost = results.ratio(OURS_MANY.name, OURS.name).median
    others = [each.name for each in _other_pools.MANY_IN_FLIGHT if each.name in results.seconds]
    cheaper = [name.partition(",")[0] for name in others if results.ratio(name, OURS_MANY.name).high < 1]
    remark = f" There, these pools are cheaper: {', '.join(cheaper)}." if cheaper else ""
    return (
        f"The first row holds for one object in flight at a time. With {IN_FLIGHT}, a get + put costs {cost:.1f} times "
        f"as much: all but one go through the shared list.{remark}"
    )


def figures(results: Results, *bases: str) -> dict[str, object]:
    return {
        **{
            name: {
                "seconds": results.time(name)._asdict(),
                "ratio to": {base: results.ratio(name, base)._asdict() for base in bases},
            }
            for name in results.seconds
        },
        **{name: {"unavailable": reason} for name, reason in results.unavailable.items()},
    }


async def measure_all(rounds: int) -> tuple[Results, Results]:
    return (
        await measure([each for section in SECTIONS for each in section], rounds),
        await measure(TASK_CANDIDATES, rounds),
    )


def main() -> None:
    options = arguments(__doc__, rounds=30, quick=5)
    results, tasks = asyncio.run(measure_all(options.rounds))
    show(main_table(results), task_table(tasks), verdict(results))
    write_json(
        options.json,
        {
            "rounds": options.rounds,
            "get_put": figures(results, LIST.name, OURS.name),
            "tasks": figures(tasks, BARE_TASK.name),
        },
    )


if __name__ == "__main__":
    main()
