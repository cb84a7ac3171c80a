"""The operations that `scaling.py` lets several loops do at the same time.

Everything is written as a program would write it: a pool that all loops share is a global of this module, and `get` and
`put` are looked up at each call. How a program reaches the pool matters on a free-threaded build, where reading a
global, an attribute or a closure may write the reference count of the object. So the first operation is written in
several ways.

A pool of a loop's own is created in the loop's thread and reached through a local variable. On a free-threaded build,
for an object that another thread created, the more expensive of its two reference counts is written.

What could make the figures misleading: a loop of the benchmark that itself writes to shared memory. Even a large
integer in a global variable is a shared object, and each read writes its reference count; so is a constant in the code,
unless the module was loaded from a .pyc file (`PYTHONDONTWRITEBYTECODE`). One row of buffers shows this; the others
have the size in a local variable. The rows of lists that are not shared are the control: if they fall short of 2, the
machine or the benchmark is the cause.
"""

import threading
from collections.abc import Callable
from itertools import repeat
from queue import SimpleQueue

from _scaling_case import Case, OwnObjects
from _timing import IN_FLIGHT

from aiopool import AsyncPool, BufferPool, Pool

SIZE = 4096
PUTS = 67
"""How many puts follow a hundred gets where objects are scarce, as in a benchmark of Go's own."""


# --- shared by all loops ---

POOL = Pool(object)
OWN_OBJECTS = Pool(object, idle_timeout=None)
MIXED_OBJECTS = Pool(object, idle_timeout=None)
BUFFERS = BufferPool()
OWN_BLOCKS = BufferPool(idle_timeout=None)
ASYNC_POOL = AsyncPool(object)
SCARCE: Pool[object | None] = Pool()

ITEMS = [object() for _ in range(8)]
LOCK = threading.Lock()
QUEUE: "SimpleQueue[object]" = SimpleQueue()
for _ in range(8):
    QUEUE.put(object())


class Server:
    """Keeps its pool in an attribute."""

    def __init__(self) -> None:
        self.pool = POOL

    async def get_put(self, n: int) -> None:
        for _ in repeat(None, n):
            obj = self.pool.get()
            self.pool.put(obj)


SERVER = Server()


async def get_put(n: int) -> None:
    for _ in repeat(None, n):
        obj = POOL.get()
        POOL.put(obj)


async def local_get_put(n: int) -> None:
    pool = POOL
    for _ in repeat(None, n):
        obj = pool.get()
        pool.put(obj)


async def bound_get_put(n: int) -> None:
    get, put = POOL.get, POOL.put
    for _ in repeat(None, n):
        obj = get()
        put(obj)


async def hold_objects(wait: Callable[[], int]) -> None:
    objects = [OWN_OBJECTS.get() for _ in range(IN_FLIGHT)]
    wait()
    for obj in objects:
        OWN_OBJECTS.put(obj)


async def in_flight(n: int) -> None:
    for _ in repeat(None, n):
        for obj in [OWN_OBJECTS.get() for _ in range(IN_FLIGHT)]:
            OWN_OBJECTS.put(obj)


async def mixed_in_flight(n: int) -> None:
    """The loop that works first creates most of the objects, and the others steal them."""
    for _ in repeat(None, n):
        for obj in [MIXED_OBJECTS.get() for _ in range(IN_FLIGHT)]:
            MIXED_OBJECTS.put(obj)


async def borrow(n: int) -> None:
    for _ in repeat(None, n):
        with POOL.borrow():
            pass


async def acquire(n: int) -> None:
    size = SIZE
    for _ in repeat(None, n):
        BUFFERS.acquire(size)


async def acquire_global_size(n: int) -> None:
    for _ in repeat(None, n):
        BUFFERS.acquire(SIZE)


async def hold_blocks(wait: Callable[[], int]) -> None:
    views = [OWN_BLOCKS.acquire(SIZE) for _ in range(IN_FLIGHT)]
    wait()
    views.clear()


async def acquire_in_flight(n: int) -> None:
    size = SIZE
    for _ in repeat(None, n):
        [OWN_BLOCKS.acquire(size) for _ in range(IN_FLIGHT)].clear()


async def async_borrow(n: int) -> None:
    for _ in repeat(None, n):
        async with ASYNC_POOL.borrow():
            pass


async def scarce(n: int) -> None:
    """Each loop gets more than it puts, and so steals from the others."""
    objects = [object() for _ in range(PUTS)]
    for _ in repeat(None, n):
        for obj in objects:
            SCARCE.put(obj)
        for _ in range(IN_FLIGHT):
            SCARCE.get()


async def list_pair(n: int) -> None:
    for _ in repeat(None, n):
        obj = ITEMS.pop()
        ITEMS.append(obj)


async def locked_list(n: int) -> None:
    for _ in repeat(None, n):
        with LOCK:
            obj = ITEMS.pop()
        with LOCK:
            ITEMS.append(obj)


async def simple_queue(n: int) -> None:
    for _ in repeat(None, n):
        obj = QUEUE.get_nowait()
        QUEUE.put(obj)


# --- each loop's own ---


class Mine(threading.local):
    """The objects that each thread creates for itself."""

    def __init__(self) -> None:
        self.pool = Pool(object)
        self.buffers = BufferPool()
        self.async_pool = AsyncPool(object)
        self.items = [object()]
        self.lock = threading.Lock()
        self.queue: SimpleQueue[object] = SimpleQueue()
        self.queue.put(object())


MINE = Mine()


async def own_get_put(n: int) -> None:
    pool = MINE.pool
    for _ in repeat(None, n):
        obj = pool.get()
        pool.put(obj)


async def own_in_flight(n: int) -> None:
    pool = MINE.pool
    for _ in repeat(None, n):
        for obj in [pool.get() for _ in range(IN_FLIGHT)]:
            pool.put(obj)


async def own_borrow(n: int) -> None:
    pool = MINE.pool
    for _ in repeat(None, n):
        with pool.borrow():
            pass


async def own_acquire(n: int) -> None:
    buffers, size = MINE.buffers, SIZE
    for _ in repeat(None, n):
        buffers.acquire(size)


async def own_async_borrow(n: int) -> None:
    pool = MINE.async_pool
    for _ in repeat(None, n):
        async with pool.borrow():
            pass


async def own_list_pair(n: int) -> None:
    items = MINE.items
    for _ in repeat(None, n):
        obj = items.pop()
        items.append(obj)


async def own_locked_list(n: int) -> None:
    lock, items = MINE.lock, MINE.items
    for _ in repeat(None, n):
        with lock:
            obj = items.pop()
        with lock:
            items.append(obj)


async def own_simple_queue(n: int) -> None:
    queue = MINE.queue
    for _ in repeat(None, n):
        obj = queue.get_nowait()
        queue.put(obj)


# --- all of it ---

SHARED = [
    Case("get + put", get_put),
    Case("get + put, written self.pool.get()", SERVER.get_put),
    Case("get + put, pool a local variable", local_get_put),
    Case("get + put, methods bound once", bound_get_put),
    OwnObjects(f"get + put, {IN_FLIGHT} in flight", in_flight, IN_FLIGHT, hold_objects),
    Case(f"get + put, {IN_FLIGHT} in flight, created by other loops", mixed_in_flight, IN_FLIGHT),
    Case("with borrow()", borrow),
    Case(f"{IN_FLIGHT} gets, {PUTS} puts", scarce, IN_FLIGHT),
    Case("acquire + drop", acquire),
    Case("acquire + drop, size a global variable", acquire_global_size),
    OwnObjects(f"acquire + drop, {IN_FLIGHT} in flight", acquire_in_flight, IN_FLIGHT, hold_blocks),
    Case("async with AsyncPool.borrow()", async_borrow),
]

OWN = [
    Case("get + put", own_get_put),
    Case(f"get + put, {IN_FLIGHT} in flight", own_in_flight, IN_FLIGHT),
    Case("with borrow()", own_borrow),
    Case("acquire + drop", own_acquire),
    Case("async with AsyncPool.borrow()", own_async_borrow),
]

OTHERS = [
    Case("list.pop + append, each its own", own_list_pair),
    Case("list.pop + append, shared", list_pair),
    Case("list behind a lock, each its own", own_locked_list),
    Case("list behind a lock, shared", locked_list),
    Case("queue.SimpleQueue, each its own", own_simple_queue),
    Case("queue.SimpleQueue, shared", simple_queue),
]
