"""From rounds to figures, and from figures to what can be said of them.

Machines are noisy: the same round costs a tenth more or less a second later. So rounds over asyncio's streams and over
aiopool's alternate, and each of aiopool's is compared with the one of asyncio's just before it. What is reported is the
median of those ratios, and who was better in how many rounds. A difference is only called one when it is not tiny and
chance alone would seldom have made it.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from ..stats import BufferStats

SELDOM = 0.01
"""Less than this is the probability that chance made a difference that is called one."""

TINY = 0.02
"""Less than this part is a difference that two runs with the same streams show too."""


class Round(NamedTuple):
    """What one round cost."""

    #: answers that came, right or wrong
    messages: int
    #: wrong answers
    mismatches: int
    #: from the first message to the last answer
    seconds: float
    #: CPU time of the server's process, in seconds
    cpu: float
    #: the largest resident size of the server's process that was seen, in bytes
    resident_peak: int
    #: its resident size when the round ended, in bytes
    resident_end: int


Verdict = Literal["won", "lost", "no clear difference"]


class Metric(NamedTuple):
    """One thing that is compared."""

    #: what it is called in JSON
    key: str
    #: what it is called in tables and sentences
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
    """How rounds over aiopool's streams compare with rounds over asyncio's by one metric."""

    metric: Metric
    #: the median of the rounds over asyncio's
    asyncio: float
    #: the median of the rounds over aiopool's
    aiopool: float
    #: the median of aiopool to asyncio, each round with the one just before it
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
    """All that the demo found out."""

    #: rounds over asyncio's streams
    asyncio: Sequence[Round]
    #: rounds over aiopool's
    aiopool: Sequence[Round]
    #: what the buffer pool said when the last round had ended
    buffers: BufferStats

    @property
    def messages(self) -> int:
        """Answers that came, in all rounds."""
        return sum(each.messages for each in (*self.asyncio, *self.aiopool))

    @property
    def mismatches(self) -> int:
        """Wrong answers, in all rounds."""
        return sum(each.mismatches for each in (*self.asyncio, *self.aiopool))

    def comparisons(self) -> list[Comparison]:
        """Both kinds of streams, by each metric."""
        return [compare(metric, self.asyncio, self.aiopool) for metric in METRICS]


def compare(metric: Metric, asyncio: Sequence[Round], aiopool: Sequence[Round]) -> Comparison:
    """Rounds over both kinds of streams, which come in pairs, by one metric."""
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
    """How likely tosses of a coin come out as one-sided as this, or more so: the sign test."""
    tosses = better + worse
    fewer = min(better, worse)
    return min(1.0, 2 * sum(math.comb(tosses, k) for k in range(fewer + 1)) / (1 << tosses))
