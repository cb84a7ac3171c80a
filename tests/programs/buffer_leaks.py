"""Every operation and every error path of a buffer pool leaks nothing."""

import asyncio
import gc
import pickle
import warnings

from children import off_loop
from leaks import check_for_leaks

import aiopool

warnings.filterwarnings("ignore", "Buffers are not reused")
gc.disable()


def caught(function, *args):
    try:
        function(*args)
    except (ValueError, TypeError, MemoryError, BufferError):
        return
    raise AssertionError("nothing was raised")


pool = aiopool.BufferPool(max_idle_bytes=1 << 20, max_size=1 << 16)
wiping, full = aiopool.BufferPool(wipe=True), aiopool.BufferPool(max_idle_bytes=0)
types = [
    aiopool._core.size_class.SizeClass,
    aiopool._core.idle_budget.IdleBudget,
    aiopool._core.store.Store,
    aiopool.BufferPool,
]


def one():
    pool.acquire(1000)


def three():
    held = [pool.acquire(1000), pool.acquire(1000), pool.acquire(1000)]


def with_block():
    with pool.acquire(1000) as view:
        pass


def slices():
    view = pool.acquire(1000)
    parts = [view[1:], view.cast("b"), memoryview(view), view.toreadonly(), view[::2]]


def object_of_a_view():
    pool.acquire(1000).obj


def wiped():
    wiping.acquire(1000)


def not_kept():
    full.acquire(1000)


def oversize():
    pool.acquire(70_000)


def empty():
    pool.acquire(0)


def negative():
    caught(pool.acquire, -1)


def not_a_number():
    caught(pool.acquire, "x")


def too_much():
    caught(pool.acquire, 1 << 62)


def overflow():
    caught(pool.acquire, 1 << 70)


def off():
    off_loop(pool.acquire, 1000)


def steal():
    off_loop(pool.acquire, 5000)
    pool.acquire(5000)


def dropped_while_raising():
    try:
        view = pool.acquire(1000)
        1 // 0
    except ZeroDivisionError:
        pass


def dropped_by_raising_code():
    try:
        [pool.acquire(1000) if index < 3 else 1 // 0 for index in range(5)]
    except ZeroDivisionError:
        pass


def released_while_exported():
    view = pool.acquire(1000)
    export = pickle.PickleBuffer(view)
    caught(view.release)
    export.release()


def cycle():
    held = [pool.acquire(1000)]
    held.append(held)
    held[1] = None


def a_new_pool():
    short = aiopool.BufferPool(min_size=1, max_size=8)
    short.acquire(1), short.acquire(8)
    short.acquire(2)


def outlives():
    view = aiopool.BufferPool(max_size=1024).acquire(100)
    view[0] = 1


def stats():
    pool.stats()


def clear():
    pool.acquire(1000)
    pool.clear()


async def clean_up():
    pool.acquire(1000)
    aiopool.cleanup()
    aiopool.cleanup()
    await asyncio.sleep(0)


def bad_pool():
    caught(lambda: aiopool.BufferPool(min_size=0))


def refill():
    pool.clear(), wiping.clear()
    one()


OPERATIONS = [
    one,
    three,
    with_block,
    slices,
    object_of_a_view,
    wiped,
    not_kept,
    oversize,
    empty,
    negative,
    not_a_number,
    too_much,
    overflow,
    off,
    steal,
    dropped_while_raising,
    dropped_by_raising_code,
    released_while_exported,
    cycle,
    a_new_pool,
    outlives,
    stats,
    clear,
    clean_up,
    bad_pool,
]

# Each of the many size classes counts its cycles. CPython has the smaller integers ready, on 3.15 up to 1024; counting
# on beyond them takes memory, but once only.
for _ in range(1100):
    aiopool.cleanup()
asyncio.run(check_for_leaks(OPERATIONS, watched=types, restore=refill))
for each in (pool, wiping, full):
    assert each.stats().bytes_in_use == 0, each
print("ok")
