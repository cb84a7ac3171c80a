"""The evaluation of rounds: medians, ratios and verdicts.

Machines are noisy: the same round may cost a tenth more or less a second later. So rounds over asyncio's streams and
over aiopool's alternate, and each of aiopool's is compared with asyncio's round just before it. The report gives the
median of these ratios, and in how many rounds aiopool was better. A difference only counts if it is not tiny and is
unlikely to be due to chance.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from ..stats import BufferStats

SELDOM = 0.01
"""A difference counts only if its probability of being due to chance is less than this."""

TINY = 0.02
"""A relative difference below this does not count, because two runs with the same streams differ as much."""


class Round(NamedTuple):
    """The measurements of one round."""

    #: answers that arrived, right or wrong
    messages: int
    #: wrong answers
    mismatches: int
    #: from the first message to the last answer
    seconds: float
    #: CPU time of the server's process, in seconds
    cpu: float
    #: the largest measured resident size of the server's process, in bytes
    resident_peak: int
    #: its resident size at the end of the round, in bytes
    resident_end: int


Verdict = Literal["won", "lost", "no clear difference"]


class Metric(NamedTuple):
    """A quantity that is compared."""

    #: its name in JSON
    key: str
    #: its name in tables and sentences
    name: str
    of: Callable[[Round], float]
    more_is_better: bool = False


METRICS = (
    Metric("messages_per_second", "messages/s", lambda round: round.messages / round.seconds, more_is_better=True),
    Metric("cpu_seconds_per_message", "CPU a message", lambda round: round.cpu / round.messages),
    Metric("resident_peak_bytes", "resident size, peak", lambda round: round.resident_peak),
    Metric("resident_end_bytes", "resident size, at end", lambda round: round.resident_end),
)


class Comparison(NamedTuple):
    """The comparison of rounds over both kinds of streams by one metric."""

    metric: Metric
    #: the median of the rounds over asyncio's
    asyncio: float
    #: the median of the rounds over aiopool's
    aiopool: float
    #: the median of the ratios, aiopool to asyncio, over pairs of adjacent rounds
    ratio: float
    #: in how many rounds aiopool was better
    better: int
    #: in how many rounds aiopool was worse
    worse: int

    @property
    def verdict(self) -> Verdict:
        """How aiopool did by this metric."""
        if abs(self.ratio - 1) < TINY or _chance(self.better, self.worse) >= SELDOM:
            return "no clear difference"
        return "won" if self.better > self.worse else "lost"


class Results(NamedTuple):
    """All results of the demo."""

    #: rounds over asyncio's streams
    asyncio: Sequence[Round]
    #: rounds over aiopool's
    aiopool: Sequence[Round]
    #: the statistics of the buffer pool after the last round
    buffers: BufferStats

    @property
    def messages(self) -> int:
        """Answers that arrived, in all rounds."""
        return sum(each.messages for each in (*self.asyncio, *self.aiopool))

    @property
    def mismatches(self) -> int:
        """Wrong answers, in all rounds."""
        return sum(each.mismatches for each in (*self.asyncio, *self.aiopool))

    def comparisons(self) -> list[Comparison]:
        """The comparisons of both kinds of streams, one for each metric."""
        return [compare(metric, self.asyncio, self.aiopool) for metric in METRICS]


def compare(metric: Metric, asyncio: Sequence[Round], aiopool: Sequence[Round]) -> Comparison:
    """Compare pairs of rounds over both kinds of streams by one metric."""
    pairs = [(metric.of(before), metric.of(after)) for before, after in zip(asyncio, aiopool, strict=True)]
    less = sum(after < before for before, after in pairs)
    more = sum(after > before for before, after in pairs)
    better, worse = (more, less) if metric.more_is_better else (less, more)
    return Comparison(
        metric=metric,
        asyncio=statistics.median(before for before, _ in pairs),
        aiopool=statistics.median(after for _, after in pairs),
        ratio=statistics.median(after / before for before, after in pairs),
        better=better,
        worse=worse,
    )


def _chance(better: int, worse: int) -> float:
    """The sign test: how likely tosses of a coin are to be at least as one-sided as this."""
    tosses = better + worse
    fewer = min(better, worse)
    return min(1.0, 2 * sum(math.comb(tosses, k) for k in range(fewer + 1)) / (1 << tosses))
