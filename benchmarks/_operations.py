"""Each path of aiopool that a server takes, as a candidate to time.

A pool lives as long as one sample, so its first get is a miss, which does not matter among ten thousand gets. For
stealing and for the victim, the pool is filled before the clock starts.

`async with AsyncPool.borrow()` has another base than the list pair: a bare `async with` of a context manager in Python
that does nothing. Half of its cost is the coroutines that every `async with` needs.
"""

import asyncio
from itertools import repeat
from types import TracebackType

from _timing import IN_FLIGHT, Candidate

from aiopool import AsyncPool, Pool, cleanup

# --- Pool ---


async def get_put(n: int) -> None:
    pool = Pool(object)
    for _ in repeat(None, n):
        obj = pool.get()
        pool.put(obj)


async def in_flight(n: int) -> None:
    pool = Pool(object)
    for _ in repeat(None, n):
        for obj in [pool.get() for _ in range(IN_FLIGHT)]:
            pool.put(obj)


async def borrow(n: int) -> None:
    pool = Pool(object)
    for _ in repeat(None, n):
        with pool.borrow():
            pass


async def with_reset(n: int) -> None:
    pool = Pool(bytearray, reset=bytearray.clear)
    for _ in repeat(None, n):
        obj = pool.get()
        pool.put(obj)


async def loop_bound(n: int) -> None:
    pool = Pool(object, loop_bound=True)
    for _ in repeat(None, n):
        obj = pool.get()
        pool.put(obj)


async def miss(n: int) -> None:
    pool = Pool(object)
    for _ in repeat(None, n):
        pool.get()


async def off_loop(n: int) -> None:
    """In a worker thread, with the loop's context, as with `asyncio.to_thread`. The thread is started once."""

    def work() -> None:
        pool = Pool(object)
        for _ in repeat(None, n):
            obj = pool.get()
            pool.put(obj)

    await asyncio.to_thread(work)


class Filled:
    """Gets from a pool that was filled before."""

    def __init__(self) -> None:
        self.pool: Pool[object | None] = Pool()
        # Kept, so that a get does not free its object.
        self.objects: list[object] = []

    def fill(self, n: int) -> None:
        self.objects.extend(object() for _ in range(n - len(self.objects)))
        self.pool = Pool()
        for obj in self.objects[:n]:
            self.pool.put(obj)

    async def repeat(self, n: int) -> None:
        pool = self.pool
        for _ in repeat(None, n):
            pool.get()


class Stealing(Filled):
    """Another loop's thread has put all objects."""

    async def prepare(self, n: int) -> None:
        await asyncio.to_thread(asyncio.run, self.fill_elsewhere(n))

    async def fill_elsewhere(self, n: int) -> None:
        self.fill(n + 1)  # the object in the private slot cannot be stolen


class VictimHits(Filled):
    """A cleanup cycle ran after the last put, so all objects lie in the victim."""

    async def prepare(self, n: int) -> None:
        self.fill(n)
        cleanup()


# --- AsyncPool ---


class Empty:
    """The smallest possible async context manager in Python."""

    async def __aenter__(self) -> None: ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...


async def bare_async_with(n: int) -> None:
    manager = Empty()
    for _ in repeat(None, n):
        async with manager:
            pass


async def created_async_with(n: int) -> None:
    for _ in repeat(None, n):
        async with Empty():
            pass


async def async_borrow(n: int) -> None:
    pool = AsyncPool(object)
    for _ in repeat(None, n):
        async with pool.borrow():
            pass


async def async_get_put(n: int) -> None:
    pool = AsyncPool(object)
    for _ in repeat(None, n):
        obj = await pool.get()
        await pool.put(obj)


stealing, victim_hits = Stealing(), VictimHits()

GET_PUT = Candidate("get + put", get_put)
IN_FLIGHT_PAIR = Candidate(f"get + put, {IN_FLIGHT} in flight", in_flight, operations=IN_FLIGHT)
STEAL = Candidate("get that steals", stealing.repeat, stealing.prepare)
MISS = Candidate("get that misses, new=object", miss)
PATHS = [
    GET_PUT,
    IN_FLIGHT_PAIR,
    Candidate("with borrow()", borrow),
    Candidate("get + put, reset=bytearray.clear", with_reset),
    Candidate("get + put, loop-bound", loop_bound),
    Candidate("get + put off-loop", off_loop),
    STEAL,
    Candidate("get from the victim", victim_hits.repeat, victim_hits.prepare),
    MISS,
]

BARE_ASYNC_WITH = Candidate("bare async with", bare_async_with)
ASYNC_PATHS = [
    BARE_ASYNC_WITH,
    Candidate("bare async with, created each time", created_async_with),
    Candidate("async with AsyncPool.borrow()", async_borrow),
    Candidate("await get() + await put()", async_get_put),
]
