"""Who holds the bytes of a buffer pool: where each view was acquired that is still alive.

A program whose memory grows has views that it does not drop, and nothing in the program says which. To record every
acquire costs ten times the acquire. So a pool records one in `sample_every`, and all of them while the debug mode is
on. Each record tells how many acquires it stands for. What is recorded is forgotten when the block comes back, so a
program that drops its views has no more records than it has views, and one that keeps them has a record of each so
many.
"""

from time import monotonic
from typing import NamedTuple

from .._native import native
from .place import Place, caller

DEFAULT_SAMPLE_EVERY = 1024
"""Then a record, which takes about one and a half microseconds, costs an acquire two percent."""

SLOW_PATH_SAMPLES = 16
"""Acquires that find nothing idle on their own loop are recorded so many times as often: it is there that a pool grows,
and beside a new block a record is cheap."""


class Recorded(NamedTuple):
    """One view that is alive."""

    place: Place
    #: bytes of its block
    size: int
    #: in seconds of time.monotonic()
    since: float
    #: how many acquires it was chosen from
    stands_for: int


def record_holder(size: int, stands_for: int) -> Recorded:
    """A record of the view that is being acquired now."""
    return Recorded(caller(), size, monotonic(), stands_for)


if native is not None:
    native.bind(record_holder=record_holder)
