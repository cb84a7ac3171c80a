"""Helpers for test suites. `pytest_aiopool` is their pytest face, and docs/testing.md tells how to use them.

`isolated` gives a test pools that are empty and only its own. The pools' contents are set aside for that time, for the
whole process. The other way would be to bind a processor of the test's own in the context, as the pin does. But such
a test still steals from the shared lists of others, and from the victim; code in worker threads has no processor to
swap; and a test need not run in the context in which its fixtures ran: anyio's plugin runs all tests of a module in the
context of whichever was first. The price is that one test at a time can be isolated in one process.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from ._core import freeing
from ._core.registry import pools, stores_of
from ._pooled_fixture import LoopBound, pooled_fixture

__all__ = ["LoopBound", "isolated", "pooled_fixture"]

_isolations: list[object] = []


@contextmanager
def isolated() -> Iterator[None]:
    """Every pool is empty when the block begins, its stats too, and afterwards as it was before.

    For all threads and all loops. What is lent when the block begins may be put during it, and is then gone with
    the rest; so put it afterwards. What the block lends and puts only afterwards goes to the pool.

    Takes microseconds for each pool. Blocks may lie in each other, but not overlap.

    >>> pool.put(bytearray(3))
    >>> with isolated(): pool.stats().idle
    0
    >>> pool.stats().idle
    1

    :raises RuntimeError: another block began in this one, and has not ended.
    """
    known = pools()
    kept = [(store, store.set_aside()) for store in stores_of(known)]
    token = object()
    _isolations.append(token)
    try:
        yield
    finally:
        overlapped = _isolations[-1] is not token
        _isolations.remove(token)
        for store, contents in kept:
            freeing.retire(store.bring_back(contents))
        for store in stores_of([pool for pool in pools() if not any(pool is each for each in known)]):
            freeing.retire(store.clear())
        freeing.free_queued()
        if overlapped:
            raise RuntimeError("isolated() blocks overlap: only one test at a time can be isolated in one process")
