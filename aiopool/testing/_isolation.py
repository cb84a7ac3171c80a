"""`isolated`: pools that are empty and belong to one test.

The contents of all pools are set aside for that time, for the whole process. The alternative is to bind a processor of
the test's own in the context, as the pin does. But such a test still steals from the shared lists of other processors,
and from the victim; code in worker threads has no processor to replace; and a test need not run in the context in which
its fixtures ran: anyio's plugin runs all tests of a module in the context of the first one. The price: only one test at
a time can be isolated in one process.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from .._core import freeing
from .._core.registry import pools, stores_of

_isolations: list[object] = []


@contextmanager
def isolated() -> Iterator[None]:
    """Every pool is empty when the block begins, with counters at zero, and afterwards as it was before.

    For all threads and all loops. An object that was checked out before the block may be put during it, and is then
    dropped with everything else the block leaves behind. An object that the block checks out and that is put only after
    the block goes to the pool.

    Takes microseconds for each pool. Blocks can be nested, but cannot overlap.

    >>> pool.put(bytearray(3))
    >>> with isolated(): pool.stats().idle
    0
    >>> pool.stats().idle
    1

    :raises RuntimeError: a block that began inside this one has not ended.
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
