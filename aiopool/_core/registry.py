"""All live pools, for cleanup cycles, statistics, isolation and the debug mode.

The references are weak, so that a pool that is no longer referenced is freed with its idle objects. Pools are compared
by identity, because a subclass may define its own equality.
"""

import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol


class Retired(Protocol):
    """Objects that were removed from a store for good, and that no thread uses any more."""

    def __len__(self) -> int: ...

    def free_newest(self) -> bool:
        """Free one object; return `False` if none is left for the caller to free."""
        ...


class CollectableStore(Protocol):
    """The interface of a store that cleanup uses."""

    def rotate(self) -> list[Retired]:
        """Do this store's part of a cleanup cycle: primary becomes the victim. Returns the old victim, to be freed."""
        ...

    def idle_due(self) -> float:
        """When the idle objects need a cleanup cycle, in seconds of time.monotonic(); infinity if nothing is idle."""
        ...

    def clear(self) -> list[Retired]:
        """Remove all idle objects and return them, to be freed."""
        ...

    def forget_empty(self) -> list[Retired]:
        """If nothing is idle, retire the empty shards."""
        ...

    def set_aside(self) -> Any:
        """Behave as a new store until `bring_back` is called with the result."""
        ...

    def bring_back(self, kept: Any) -> list[Retired]:
        """Restore what was set aside. Returns the objects put in between, to be freed."""
        ...

    def observe(self, observed: bool) -> None:
        """Turn observation on or off: while it is on, gets and puts take the slow path, which notifies the observer."""
        ...

    def renew_locks(self) -> None:
        """In the child of a fork: replace the locks, because a thread that held one is gone."""
        ...


_pools: dict[int, "weakref.ref[Any]"] = {}


def register(pool: Any) -> None:
    """Add `pool`, and so the stores in its `_stores`, until it is no longer referenced."""
    key = id(pool)
    # The callback is one C call, because it can run between any two bytecodes. Its argument, the weak reference, serves
    # as the default of pop.
    _pools[key] = weakref.ref(pool, partial(_pools.pop, key))


def pools() -> list[Any]:
    """Return the live pools, oldest first. Thread-safe.

    >>> pool = Pool(bytearray, name="frames")
    >>> pool in aiopool.pools()
    True
    """
    return [pool for ref in list(_pools.values()) if (pool := ref()) is not None]


def all_stores() -> Iterator[CollectableStore]:
    """Go through the stores of all live pools. Only the pool that it has come to is kept alive.

    On free-threaded builds garbage collections free pools. If each thread that is here kept all of them alive, and some
    thread were always here, no collection could free any.
    """
    for ref in list(_pools.values()):
        pool = ref()
        if pool is not None:
            yield from pool._stores


def stores_of(pools: list[Any]) -> list[CollectableStore]:
    """The stores of `pools`."""
    return [store for pool in pools for store in pool._stores]
