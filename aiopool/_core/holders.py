"""The holders of a buffer pool's blocks: the places where views that are still alive were acquired.

A program whose memory grows keeps views that it should drop, but nothing in the program says which. A record costs ten
times as much as the acquire itself, so a pool records one acquire in `sample_every`, and all of them in debug mode.
Each record says how many acquires it stands for, and is removed when the block comes back. So there are never more
records than live views.
"""

from time import monotonic
from typing import NamedTuple

from .._native import native
from .place import Place, caller

DEFAULT_SAMPLE_EVERY = 1024
"""A record takes about 1.5 µs, so one in 1024 acquires adds two percent to the average acquire."""

SLOW_PATH_SAMPLES = 16
"""How many times more often acquires are recorded that find no idle block on their own loop: these make a pool grow,
and a record is cheap compared to a new block."""


class Recorded(NamedTuple):
    """One view that is alive."""

    place: Place
    #: of its block, in bytes
    size: int
    #: when it was acquired, in seconds of time.monotonic()
    since: float
    #: how many acquires this record represents
    stands_for: int


def record_holder(size: int, stands_for: int) -> Recorded:
    """A record of the view that is being acquired now."""
    return Recorded(caller(), size, monotonic(), stands_for)


if native is not None:
    native.bind(record_holder=record_holder)
