"""What `get_put.py` and `debug.py` both time: pools of the cheapest objects, and a list to compare them with."""

from itertools import repeat

from _timing import IN_FLIGHT

from aiopool import AsyncPool, Pool


async def list_pair(n: int) -> None:
    items = [object()]
    for _ in repeat(None, n):
        obj = items.pop()
        items.append(obj)


async def get_put(n: int) -> None:
    pool = Pool(object)
    for _ in repeat(None, n):
        obj = pool.get()
        pool.put(obj)


async def borrow(n: int) -> None:
    pool = Pool(object)
    for _ in repeat(None, n):
        with pool.borrow():
            pass


async def many_in_flight(n: int) -> None:
    pool = Pool(object)
    for _ in repeat(None, n):
        for obj in [pool.get() for _ in range(IN_FLIGHT)]:
            pool.put(obj)


async def async_get_put(n: int) -> None:
    pool = AsyncPool(object)
    for _ in repeat(None, n):
        obj = await pool.get()
        await pool.put(obj)
