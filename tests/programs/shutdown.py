"""The interpreter ends while objects are in use, idle or half done: nothing is printed, and nothing crashes."""

import asyncio
import atexit
import gc
import sys
import threading

import aiopool


class UsesEverything:
    """Uses every pool in its finalizer. Pools in pure Python cannot be used once Python clears modules."""

    def __del__(self, is_finalizing=sys.is_finalizing, python=aiopool.implementation == "python"):
        if python and is_finalizing():
            return
        for pool in all_pools or ():
            pool.put([])
            with pool.borrow():
                pass
            pool.stats()
        buffers.acquire(100)


pool, bound = aiopool.Pool(list, name="plain"), aiopool.Pool(list, name="bound", loop_bound=True)
resetting = aiopool.Pool(list, reset=list.clear, max_idle=5, idle_timeout=0.05)
connections = aiopool.AsyncPool(list, close=list.clear, loop_bound=True)
buffers = aiopool.BufferPool(wipe=True)
all_pools = (pool, resetting)
left_open = asyncio.new_event_loop()


def in_a_block():
    with pool.borrow() as thing, buffers.acquire(100) as view:
        yield thing, view


async def use():
    for each in (pool, bound, resetting):
        held = [each.get() for _ in range(3)]
        for thing in held:
            each.put(thing)
    await connections.put(await connections.get())
    async with connections.borrow():
        pass
    pool.put(UsesEverything())
    pool.fill(10_000)
    pool.clear()  # so that the loop ends with slices still to run
    pool.put(UsesEverything())
    aiopool.cleanup()
    views.append(buffers.acquire(5000))
    buffers.acquire(5000)


async def work_for_ever():
    while True:
        with pool.borrow():
            pool.put(pool.get())
        buffers.acquire(3000)
        started.set()
        await asyncio.sleep(0.001)


views = [buffers.acquire(1000), buffers.acquire(1000)[5:]]
asyncio.run(use())
left_open.run_until_complete(use())
generators = [in_a_block(), in_a_block()]
list(map(next, generators))
borrows = [pool.borrow(), pool.borrow(), resetting.borrow()]
borrows[0].__enter__()
pool.put((pool, borrows, UsesEverything()))
started = threading.Event()
threading.Thread(target=asyncio.run, args=(work_for_ever(),), daemon=True).start()
assert started.wait(30)
local = threading.local()
local.view, local.borrow = buffers.acquire(10), pool.borrow()
atexit.register(lambda: (pool.put(UsesEverything()), buffers.acquire(10), pool.clear(), aiopool.cleanup()))
# These outlive the globals of all modules.
sys.kept = (UsesEverything(), buffers.acquire(10), pool, borrows[1])
aiopool.Pool.kept = (UsesEverything(), buffers.acquire(10), pool, borrows[2])
if sys.argv[1:] == ["no collection"]:
    gc.disable()
print("ok", flush=True)
left_open.close()
