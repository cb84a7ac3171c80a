"""How the benchmarks time: many candidates side by side in one run, compared round by round.

A machine is faster in one second than in the next. So each round times every candidate once, in shuffled order, and a
ratio is taken within a round, between two samples no more than seconds apart. The report shows the median and the
quartiles of these ratios; it shows times beside them only to give an idea of the size.

Every candidate is an `async def` that repeats its operation `n` times in a `for` loop of its own, with `n` calibrated
so that one sample takes about 15 ms. All of them pay for the same loop, and nothing is subtracted: a difference of two
measured times is noisier than either. So a measured ratio is a little nearer to 1 than the true one; the row "empty
loop" in `get_put.py` shows by how much.

The cyclic garbage collector is run once and then switched off until all is measured: a collection would disturb a
random sample, and a full one is also a cleanup cycle of aiopool.

Where the system says for how long a thread waited for a core that another thread had, as Linux does, that time is left
out.

What could make the figures misleading: other work on the same cores, which still takes its part of the caches (look at
the quartiles), and that every such loop is a best case: the same few objects, always in the nearest cache, the
interpreter's specialised bytecode never disturbed.
"""

import gc
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import starmap
from operator import sub, truediv
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any, NamedTuple

IN_FLIGHT = 100
"""How many objects are in flight where it is more than one."""

SAMPLE = 0.015
"""How long one sample should take, in seconds."""

Repeat = Callable[[int], Awaitable[None]]


class UnavailableError(Exception):
    """Raised by a candidate that cannot run here; its text says why."""


def need(module: str) -> Any:
    """Import a module that only a benchmark needs.

    Not an import statement, so that a type checker gives the same answer whether it is installed or not.

    :raises UnavailableError: the module is not installed, or does not support this platform.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise UnavailableError("not installed") from None
    except Exception as error:  # anopool asks for os.sched_getaffinity, which macOS and Windows do not have
        raise UnavailableError(f"its import fails: {error!r}") from error


@dataclass(frozen=True)
class Candidate:
    """An operation to time: `repeat(n)` does it `n` times."""

    name: str
    repeat: Repeat
    #: gets ready for `repeat(n)`; not timed
    prepare: Repeat | None = None
    #: how many operations each of the `n` times does
    operations: int = 1


class Spread(NamedTuple):
    """The results of the rounds: half of them lie between `low` and `high`."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """The median and the quartiles of `values`."""
        ordered = sorted(values)
        if len(ordered) == 1:
            return cls(ordered[0], ordered[0], ordered[0])
        low, _, high = quantiles(ordered, n=4, method="inclusive")
        return cls(low, median(ordered), high)

    @classmethod
    def of_ratios(cls, ours: Iterable[float], others: Iterable[float]) -> "Spread":
        """The spread of `ours` divided by `others`, round by round."""
        return cls.of(starmap(truediv, zip(ours, others, strict=True)))


@dataclass
class Results:
    """Seconds for one operation, by candidate, one entry a round."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    #: why a candidate was not timed
    unavailable: dict[str, str] = field(default_factory=dict)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add one round."""
        for name, value in seconds.items():
            self.seconds.setdefault(name, []).append(value)

    def time(self, name: str) -> Spread:
        """Seconds for one operation."""
        return Spread.of(self.seconds[name])

    def ratio(self, name: str, base: str) -> Spread:
        """How many times as long as `base` the candidate took."""
        return Spread.of_ratios(self.seconds[name], self.seconds[base])

    def over(self, name: str, base: str) -> Spread:
        """How many seconds longer than `base` the candidate took."""
        return Spread.of(map(sub, self.seconds[name], self.seconds[base]))


async def measure(candidates: Iterable[Candidate], rounds: int) -> Results:
    """Time every candidate once a round, inside the running loop."""
    results = Results()
    with no_collections():
        timer = Timer()
        results.unavailable = await timer.calibrate(candidates)
        for _ in range(rounds):
            results.add(await timer.round())
    return results


class Timer:
    """The candidates that can run here, and how often each sample repeats each of them."""

    def __init__(self) -> None:
        self._counts: dict[Candidate, int] = {}

    async def calibrate(self, candidates: Iterable[Candidate]) -> dict[str, str]:
        """Find out how often to repeat each candidate. Returns the reason for each that cannot run here."""
        unavailable = {}
        for candidate in candidates:
            try:
                self._counts[candidate] = await _calibrate(candidate)
            except UnavailableError as reason:
                unavailable[candidate.name] = str(reason)
        return unavailable

    async def round(self) -> dict[str, float]:
        """Time each candidate once, in shuffled order. Returns the seconds that one operation took, by name."""
        seconds = {}
        for candidate in random.sample(list(self._counts), len(self._counts)):
            n = self._counts[candidate]
            seconds[candidate.name] = await _sample(candidate, n) / (n * candidate.operations)
        return seconds


@contextmanager
def no_collections() -> Iterator[None]:
    """Collect once, and then not again until the block ends."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _calibrate(candidate: Candidate) -> int:
    """How often to repeat for a sample of the wanted length. This is also the warm-up."""
    # Not timed: the first time, a candidate may import its module, and would seem slow.
    await _sample(candidate, 1)
    n = 1
    # The shorter of two: a hiccup would end the search early, with samples that are mostly the candidate's set-up.
    while (seconds := min(await _sample(candidate, n), await _sample(candidate, n))) < SAMPLE / 4:
        n *= 4
    return max(1, round(n * SAMPLE / seconds))


async def _sample(candidate: Candidate, n: int) -> float:
    if candidate.prepare is not None:
        await candidate.prepare(n)
    before = waited()
    start = perf_counter()
    await candidate.repeat(n)
    return perf_counter() - start - (waited() - before)


def waited() -> float:
    """For how long this thread had work to do and no core to do it on, in seconds, as far as the system says."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) / 1e9
    except OSError:
        return 0.0
