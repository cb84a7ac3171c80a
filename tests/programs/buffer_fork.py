"""Forks while other threads use a buffer pool."""

import asyncio
import threading

from children import in_forks

import aiopool

pool = aiopool.BufferPool(max_idle_bytes=1 << 20)
stop = threading.Event()


async def churn():
    while not stop.is_set():
        held = [pool.acquire(3000) for _ in range(5)]
        held.clear()
        await asyncio.sleep(0)


threads = [threading.Thread(target=asyncio.run, args=(churn(),)) for _ in range(2)]
for thread in threads:
    thread.start()
mine = pool.acquire(3000)
mine[:] = b"m" * 3000


def child():
    async def use():
        held = [pool.acquire(3000) for _ in range(20)]
        for mark, view in enumerate(held):
            view[:] = bytes([mark]) * 3000
        assert all(bytes(view) == bytes([mark]) * 3000 for mark, view in enumerate(held))
        before = pool.stats().created
        del view
        held.clear()
        held = [pool.acquire(3000) for _ in range(20)]
        assert pool.stats().created == before, "the child cannot find what it dropped"

    global mine
    asyncio.run(use())
    assert bytes(mine) == b"m" * 3000
    mine = None
    aiopool.cleanup()
    aiopool.cleanup()
    assert pool.stats().bytes_idle <= 1 << 20


in_forks(child, 10)
stop.set()
for thread in threads:
    thread.join()
assert bytes(mine) == b"m" * 3000
print("ok")
