"""Event loops in threads of their own, each pinned to a core, and how much work some of them do at the same time.

A sample takes a fixed time, not a fixed number of operations: each loop works in short turns until the time is over.
So all loops run equally long, and if something else takes a part of one core, the loop there only does less. With a
fixed number of operations, the other loops would finish early, and the slow loop would run alone at the end.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from _timing import waited

T = TypeVar("T")

Work = Callable[[int], Awaitable[None]]

SAMPLE = 0.03
"""How long a sample takes, in seconds."""

TURNS = 30
"""How many turns a sample has, if the machine is as fast as when the length of a turn was chosen."""


class LoopThread:
    """A thread that runs an event loop until it is stopped."""

    def __init__(self, core: int | None = None) -> None:
        self._core = core
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        if self._core is not None:
            os.sched_setaffinity(0, {self._core})  # on Linux, 0 is the calling thread and not the process
        self._loop.run_forever()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run `coroutine` in the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` in the loop, and wait for it."""
        return self.start(coroutine).result()

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def cores() -> list[int | None]:
    """Two cores that this process may use. `None`: the system does not say, or there is only one."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return list(allowed[:2]) if len(allowed) > 1 else [None, None]


class Done(NamedTuple):
    """The work of all loops together in one sample."""

    #: turns of `n` operations each
    turns: int
    #: turns per second
    rate: float
    #: turns per second, without the time in which a loop waited for its core
    free_rate: float
    #: for how long the loops waited for their cores, in seconds
    waited: float


def work_together(loops: list[LoopThread], work: Work, n: int, most: int) -> Done:
    """Let each of `loops` do `work(n)` again and again for the time of a sample, but at most `most` times."""
    start = _CommonStart(len(loops))
    parts = [future.result() for future in [loop.start(_work(start, work, n, most)) for loop in loops]]
    return Done(*map(sum, zip(*parts, strict=True)))


class _CommonStart:
    """Lets all loops begin together, and says when that was.

    The time of a loop that has to wait for its core has begun all the same. Otherwise it would work when the others
    have finished, and loops that share a core would seem to work at the same time.
    """

    def __init__(self, loops: int) -> None:
        self._barrier = threading.Barrier(loops, self._begin)
        self._time = 0.0

    def _begin(self) -> None:
        self._time = perf_counter()

    def wait(self) -> float:
        """Wait for the other loops, and return the time at which all began."""
        self._barrier.wait()
        return self._time


async def _work(common: _CommonStart, work: Work, n: int, most: int) -> Done:
    before = waited()
    start = common.wait()
    now = perf_counter()
    turns = 0
    while now < start + SAMPLE and turns < most:
        await work(n)
        turns += 1
        now = perf_counter()
    lost = waited() - before
    free = now - start - lost
    return Done(turns, turns / (now - start), turns / free if free > 0 else 0.0, lost)
