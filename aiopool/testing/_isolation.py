"""`isolated`: empty pools for one test.

The contents of all pools in the process are set aside during the test. The alternative would be to bind a separate
processor in the test's context, as a pin does. But such a test would still steal from the shared lists of other
processors, and from the victim; code in worker threads has no processor to replace; and a test may run in a different
context than its fixtures (anyio's plugin runs all tests of a module in the context of the first one). The trade-off:
only one test at a time can be isolated in one process.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from .._core import freeing
from .._core.registry import pools, stores_of

_isolations: list[object] = []


@contextmanager
def isolated() -> Iterator[None]:
    """Make every pool empty during the block, with counters at zero, and restore it afterwards.

    This affects all threads and all loops. An object that was checked out before the block may be put during it, and is
    then dropped with everything else that the block leaves behind. An object that was checked out in the block and is
    put after it goes to the restored pool.

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
