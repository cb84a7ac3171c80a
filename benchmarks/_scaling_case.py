"""One row of `scaling.py`: work that several loops do at the same time."""

import threading
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from _loop_threads import SAMPLE, TURNS, Done, LoopThread, Work, work_together


class Case:
    """`work(n)` repeats the work `n` times; each time counts as `operations`."""

    most = 1_000_000
    """How many turns each loop may have in a sample; `prepare` gets ready for that many."""

    def __init__(self, name: str, work: Work, operations: int = 1) -> None:
        self.name = name
        self.work = work
        self.operations = operations
        self._n = 1

    def prepare(self, loops: int, n: int) -> None:
        """Get ready for `loops` loops that each repeat the work `n` times. Not timed."""

    def succeeded(self, n: int) -> float:
        """The share of `n` times, all loops together, that succeeded."""
        return 1.0

    def calibrate(self, loops: list[LoopThread]) -> None:
        """Find out how often to repeat the work in one turn. This also warms up each loop."""
        per_second = TURNS / SAMPLE
        while (rate := self._sample(loops[:1], turns=1).rate) > 4 * per_second:
            self._n *= 4
        self._n = max(1, round(self._n * rate / per_second))
        for loop in loops:
            self._sample([loop], turns=1)

    def measure(self, loops: list[LoopThread]) -> "Measured":
        """Let `loops` work at the same time."""
        done = self._sample(loops, self.most)
        each = self._n * self.operations * self.succeeded(done.turns * self._n)
        return Measured(done.rate * each, done.free_rate * each, done.waited / (len(loops) * SAMPLE))

    def _sample(self, loops: list[LoopThread], turns: int) -> Done:
        self.prepare(len(loops), self._n * turns)
        return work_together(loops, self.work, self._n, turns)


class OwnObjects(Case):
    """A case in which each loop works with objects that it created itself.

    Before the first sample, all loops run `hold(wait)` at the same time: it gets objects, calls `wait`, and then puts
    them. Without that, the loop that works first, alone, would create all objects, and the others would steal them. On
    a free-threaded build, counting references to an object that another thread created costs more, and objects that one
    thread created are neighbours in memory.
    """

    def __init__(self, name: str, work: Work, operations: int, hold: Callable[[Callable[[], int]], Awaitable[None]]):
        super().__init__(name, work, operations)
        self._hold = hold

    def calibrate(self, loops: list[LoopThread]) -> None:
        barrier = threading.Barrier(len(loops))

        async def hold() -> None:
            await self._hold(barrier.wait)

        for held in [loop.start(hold()) for loop in loops]:
            held.result()
        super().calibrate(loops)


class Measured(NamedTuple):
    """One sample of some loops."""

    #: operations per second, all loops together
    rate: float
    #: the same, for the time in which no loop waited for its core
    free_rate: float
    #: the share of the time in which a loop waited for its core
    waited: float
