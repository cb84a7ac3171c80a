"""The object pools that people find on PyPI today, each used as its documentation says, in its cheapest way.

Each candidate does what `pool.get()` and `pool.put()` do, under the names of that pool: it takes the one object in the
warm pool and gives it back. If a pool has a synchronous and an asynchronous interface, both are timed, because a fair
comparison must use the cheap one, and its documentation offers the awaited one to coroutines. (Not anopool's: its
`AsyncPool` waits for `asyncio.QueueEmpty` from a `queue.SimpleQueue` and can't hand out a first object.)

What could make the figures misleading: these pools promise other things. pondpond and anopool bound how many objects
exist, anopool waits for one to come back, generic-pool validates each object. They are slower partly because of these
features, and a program that needs them should use these pools. Each is used in its cheapest way: pondpond runs without
its eviction thread, and generic-pool, which searches all its objects at each step, has only one to search with one
object in flight.
"""

import asyncio
from functools import cache
from itertools import repeat
from typing import Any

from _timing import IN_FLIGHT, Candidate, need

# --- pondpond ---


def _pond() -> Any:
    """A Pond without its eviction thread. It gets a loop, or it would create one and never close it."""
    pond = need("pond").Pond(time_between_eviction_runs=-1, loop=asyncio.get_running_loop())
    pond.register(_pond_factory(), name="objects")
    return pond


@cache
def _pond_factory() -> Any:
    class Factory(need("pond").PooledObjectFactory):  # type: ignore[misc]
        def createInstance(self) -> Any:  # noqa: N802
            return need("pond").PooledObject(object())

        def destroy(self, pooled_object: Any) -> None: ...

        def reset(self, pooled_object: Any, **_: Any) -> Any:
            return pooled_object

        def validate(self, pooled_object: Any) -> bool:
            return True

    return Factory(pooled_maxsize=IN_FLIGHT)


async def pondpond(n: int) -> None:
    pond = _pond()
    for _ in repeat(None, n):
        pooled = pond.borrow(name="objects")
        pooled.use()
        pond.recycle(pooled, name="objects")


async def pondpond_async(n: int) -> None:
    pond = _pond()
    for _ in repeat(None, n):
        pooled = await pond.async_borrow(name="objects")
        pooled.use()
        await pond.async_recycle(pooled, name="objects")


async def pondpond_many(n: int) -> None:
    pond = _pond()
    for _ in repeat(None, n):
        for pooled in [pond.borrow(name="objects") for _ in range(IN_FLIGHT)]:
            pond.recycle(pooled, name="objects")


# --- syncpool-py ---


async def syncpool(n: int) -> None:
    pool = need("syncpool_py.pools.syncpool").SyncObjectPool()
    pool.put(object())
    for _ in repeat(None, n):
        obj = pool.get()
        pool.put(obj)


async def syncpool_async(n: int) -> None:
    pool = need("syncpool_py.pools.asyncpool").AsyncObjectPool()
    await pool.put(object())
    for _ in repeat(None, n):
        obj = await pool.get()
        await pool.put(obj)


async def syncpool_many(n: int) -> None:
    pool = need("syncpool_py.pools.syncpool").SyncObjectPool()
    for _ in range(IN_FLIGHT):
        pool.put(object())
    for _ in repeat(None, n):
        for obj in [pool.get() for _ in range(IN_FLIGHT)]:
            pool.put(obj)


# --- anopool ---


@cache
def _manager() -> Any:
    class Manager(need("anopool").Manager):  # type: ignore[misc]
        def create(self) -> object:
            return object()

    return Manager()


async def anopool(n: int) -> None:
    with need("anopool").Pool(_manager()) as pool:
        for _ in repeat(None, n):
            with pool.acquire():
                pass


async def anopool_many(n: int) -> None:
    with need("anopool").Pool(_manager(), max_size=IN_FLIGHT) as pool:
        for _ in repeat(None, n):
            acquired = [pool.acquire() for _ in range(IN_FLIGHT)]
            for each in acquired:
                each.__enter__()
            for each in acquired:
                each.__exit__(None, None, None)


# --- generic-pool ---


@cache
def _factory() -> Any:
    class Factory(need("generic_pool").Factory):  # type: ignore[misc]
        def create(self) -> object:
            return object()

    return Factory()


async def generic_pool(n: int) -> None:
    pool = need("generic_pool").Pool(_factory())
    pool.release(pool.acquire())
    for _ in repeat(None, n):
        obj = pool.acquire()
        pool.release(obj)


async def generic_pool_many(n: int) -> None:
    pool = need("generic_pool").Pool(_factory())
    for _ in repeat(None, n):
        for obj in [pool.acquire() for _ in range(IN_FLIGHT)]:
            pool.release(obj)


CANDIDATES = [
    Candidate("pondpond", pondpond),
    Candidate("pondpond, async", pondpond_async),
    Candidate("syncpool-py", syncpool),
    Candidate("syncpool-py, async", syncpool_async),
    Candidate("anopool", anopool),
    Candidate("generic-pool", generic_pool),
]

MANY_IN_FLIGHT = [
    Candidate(f"pondpond, {IN_FLIGHT} in flight", pondpond_many, operations=IN_FLIGHT),
    Candidate(f"syncpool-py, {IN_FLIGHT} in flight", syncpool_many, operations=IN_FLIGHT),
    Candidate(f"anopool, {IN_FLIGHT} in flight", anopool_many, operations=IN_FLIGHT),
    Candidate(f"generic-pool, {IN_FLIGHT} in flight", generic_pool_many, operations=IN_FLIGHT),
]
