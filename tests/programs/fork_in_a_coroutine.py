"""The child of a fork from inside a coroutine: freeing and `idle_timeout` work, and its loops have their own ids."""

import asyncio
import threading
import weakref

from children import in_forks
from shared import Thing

import aiopool

pool = aiopool.Pool(Thing, idle_timeout=0.05)


def child():
    refs = [weakref.ref(thing) for thing in (Thing() for _ in range(3)) if pool.put(thing) is None]
    pool.clear()
    assert [ref() for ref in refs] == [None] * 3, "the dropped objects are not freed"

    async def wait_for_the_timeout():
        thing = Thing()
        pool.put(thing)
        gone = weakref.ref(thing)
        del thing
        async with asyncio.timeout(30):
            while gone() is not None:
                await asyncio.sleep(0.01)

    asyncio.run(wait_for_the_timeout())

    async def own_id(barrier):
        processor = aiopool.current_processor()
        await asyncio.to_thread(barrier.wait)
        ids.append(processor.id)

    ids, barrier = [], threading.Barrier(2)
    threads = [threading.Thread(target=asyncio.run, args=(own_id(barrier),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 2, ids


async def main():
    with pool.borrow():
        pass
    in_forks(child, 1)
    with pool.borrow():
        pass


asyncio.run(main())
print("ok")
