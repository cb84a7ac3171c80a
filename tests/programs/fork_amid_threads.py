"""Forks while other threads use the pool: in the child no lock is held and no id is taken. Prints "ok"."""

import asyncio
import threading

from children import in_forks

import aiopool

pool = aiopool.Pool(object, name="forked")
stop = threading.Event()


async def churn():
    while not stop.is_set():
        held = [pool.get() for _ in range(5)]
        for obj in held:
            pool.put(obj)
        await asyncio.sleep(0)


def child():
    async def use():
        held = [pool.get() for _ in range(50)]
        assert len(set(held)) == 50
        for obj in held:
            pool.put(obj)
        assert {pool.get() for _ in range(50)} == set(held), "the child cannot find what it put"
        aiopool.cleanup()
        aiopool.cleanup()
        assert all(not shard.lock.locked() for shard in pool._store.primary.values())
        return aiopool.current_processor().id

    assert asyncio.run(use()) == 1, "the ids of lost threads are not free"
    assert len(aiopool._core.processor.processors()) == 1
    aiopool.cleanup()
    assert pool.get() is not None


threads = [threading.Thread(target=asyncio.run, args=(churn(),)) for _ in range(3)]
for thread in threads:
    thread.start()
in_forks(child, 20)
stop.set()
for thread in threads:
    thread.join()
print("ok")
