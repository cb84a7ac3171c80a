"""One row of `scaling.py`: something that several loops do at the same time."""

from typing import NamedTuple

from _loop_threads import SAMPLE, TURNS, Done, LoopThread, Work, work_together


class Case:
    """`work(n)` does it `n` times, each of which is as many `operations`."""

    most = 1_000_000
    """How many turns each loop may have in a sample; `prepare` makes ready for so many."""

    def __init__(self, name: str, work: Work, operations: int = 1) -> None:
        self.name = name
        self.work = work
        self.operations = operations
        self._n = 1

    def prepare(self, loops: int, n: int) -> None:
        """Make ready for `loops` loops that each do it `n` times. Not timed."""

    def succeeded(self, n: int) -> float:
        """What share of `n` times, all loops together, did what it should."""
        return 1.0

    def calibrate(self, loops: list[LoopThread]) -> None:
        """Find out how often to repeat it in one turn. It is the warm-up of each loop too."""
        per_second = TURNS / SAMPLE
        while (rate := self._sample(loops[:1], turns=1).rate) > 4 * per_second:
            self._n *= 4
        self._n = max(1, round(self._n * rate / per_second))
        for loop in loops:
            self._sample([loop], turns=1)

    def measure(self, loops: list[LoopThread]) -> "Measured":
        """Let `loops` do it at the same time."""
        done = self._sample(loops, self.most)
        each = self._n * self.operations * self.succeeded(done.turns * self._n)
        return Measured(done.rate * each, done.free_rate * each, done.waited / (len(loops) * SAMPLE))

    def _sample(self, loops: list[LoopThread], turns: int) -> Done:
        self.prepare(len(loops), self._n * turns)
        return work_together(loops, self.work, self._n, turns)


class Measured(NamedTuple):
    """One sample of some loops."""

    #: operations in a second, all loops together
    rate: float
    #: the same, for the time in which no loop waited for its core
    free_rate: float
    #: the share of the time in which a loop waited for its core
    waited: float
