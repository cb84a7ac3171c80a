"""Every live pool, for what concerns all of them: cleanup cycles, statistics, isolation, the debug mode.

The references are weak, so that a pool that is no longer referenced goes with all it holds. Pools are known by
identity: a subclass may define an equality of its own.
"""

import weakref
from functools import partial
from typing import Any, Protocol


class Retired(Protocol):
    """What a cleanup cycle took out of a store for good."""

    def __len__(self) -> int: ...

    def free_newest(self) -> bool:
        """Let go of one object; `False`: there is none left that the caller should free."""
        ...


class CollectableStore(Protocol):
    """What cleanup asks of a store."""

    def rotate(self) -> list[Retired]:
        """One cleanup cycle's part: primary becomes the victim; the old victim, to be freed."""
        ...

    def idle_due(self) -> float:
        """When idle objects call for a cycle, in seconds of time.monotonic(); infinity: nothing is idle."""
        ...

    def clear(self) -> list[Retired]:
        """Take out all idle objects, to be freed."""
        ...

    def forget_empty(self) -> list[Retired]:
        """Where nothing is idle, retire the empty shards."""
        ...

    def set_aside(self) -> Any:
        """Be as new until `bring_back` is called with the result."""
        ...

    def bring_back(self, kept: Any) -> list[Retired]:
        """Hold again what was set aside; what came in between, to be freed."""
        ...

    def observe(self, observed: bool) -> None:
        """Whether every get and put must take the slow path, where it is observed."""
        ...

    def renew_locks(self) -> None:
        """In the child of a fork: what lost threads locked is locked no more."""
        ...


_pools: dict[int, "weakref.ref[Any]"] = {}


def register(pool: Any) -> None:
    """Know `pool` from now on, and the stores in its `_stores`, until it is no longer referenced."""
    key = id(pool)
    # The callback is one C call, because it can run in the middle of anything. Its argument serves as pop's default.
    _pools[key] = weakref.ref(pool, partial(_pools.pop, key))


def pools() -> list[Any]:
    """The live pools, oldest first. Safe from any thread.

    >>> pool = Pool(bytearray, name="frames")
    >>> pool in aiopool.pools()
    True
    """
    return [pool for ref in list(_pools.values()) if (pool := ref()) is not None]


def stores_of(pools: list[Any]) -> list[CollectableStore]:
    """The stores of `pools`. The caller keeps those alive: a pool that died in a cycle would free its objects there."""
    return [store for pool in pools for store in pool._stores]
