"""The extra cost of the first get in a context, compared with a later one.

A pin finds its processor in the running context. A new task has a copy of the context in which it was created; if
nothing pinned there before, the task's first get has to find the processor in another way. In a server, each connection
and each request does that.

Each is measured with contexts in which something was pinned ("warm") and with contexts in which nothing was ("first"):

- `Context.run` of a get + put, which has little noise, because nothing else happens;
- a thousand tasks at a time, each of which does one get + put and yields, as in a server.

The result is the difference, in nanoseconds. No other figure of these benchmarks is a difference of two measured times,
so look at its quartiles.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from itertools import repeat
from typing import Any

from _timing import Candidate, Repeat

from aiopool import Pool

TASKS = 1000

# --- Context.run ---


class Contexts:
    """Runs a get + put once in each of many contexts, all created before the clock starts."""

    def __init__(self, pool: Pool[object] | None, *, warm: bool) -> None:
        self.pool = pool
        self.warm = warm
        self.contexts: list[Context] = []

    async def prepare(self, n: int) -> None:
        source = Context()
        if self.warm and self.pool is not None:
            source.run(get_put, self.pool)
        self.contexts = [source.copy() for _ in range(n)]

    async def repeat(self, n: int) -> None:
        pool = self.pool
        if pool is None:
            for context in self.contexts:
                context.run(nothing, pool)
        else:
            for context in self.contexts:
                context.run(get_put, pool)
        self.contexts.clear()


def get_put(pool: Pool[object]) -> None:
    obj = pool.get()
    pool.put(obj)


def nothing(pool: None) -> None:
    pass


# --- a thousand tasks ---


async def run_tasks(n: int, work: Callable[[], Coroutine[Any, Any, None]], context: Context) -> None:
    """`n` times a thousand tasks, each in a copy of `context`: no two pins in a row run in the same context."""
    loop = asyncio.get_running_loop()
    for _ in repeat(None, n):
        for task in [loop.create_task(work(), context=context.copy()) for _ in range(TASKS)]:
            await task


async def bare_tasks(n: int) -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    await run_tasks(n, work, copy_context())


def pool_tasks(context: Callable[[], Context]) -> Repeat:
    async def tasks(n: int) -> None:
        pool = Pool(object)
        pool.put(pool.get())  # from here on the context of this sample is warm

        async def work() -> None:
            obj = pool.get()
            pool.put(obj)
            await asyncio.sleep(0)

        await run_tasks(n, work, context())

    return tasks


def context_run(name: str, *, warm: bool) -> Candidate:
    contexts = Contexts(Pool(object), warm=warm)
    return Candidate(name, contexts.repeat, contexts.prepare)


empty = Contexts(None, warm=False)

RUN_WARM = context_run("Context.run: warm get + put", warm=True)
RUN_FIRST = context_run("Context.run: first get + put", warm=False)
TASK_WARM = Candidate("task: warm get + put", pool_tasks(copy_context), operations=TASKS)
TASK_FIRST = Candidate("task: first get + put", pool_tasks(Context), operations=TASKS)

CONTEXTS = [
    Candidate("Context.run: nothing", empty.repeat, empty.prepare),
    RUN_WARM,
    RUN_FIRST,
    Candidate("task: only yields", bare_tasks, operations=TASKS),
    TASK_WARM,
    TASK_FIRST,
]

WARM = {RUN_FIRST: RUN_WARM, TASK_FIRST: TASK_WARM}
"""The base of each first get."""
