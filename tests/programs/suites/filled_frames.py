"""The pool as an earlier suite left it: private and shared objects of two loops, some in the victim, and off-loop."""

import asyncio
import gc
import threading

from frames import pool

import aiopool

gc.disable()  # a collection would be a cleanup cycle: on free-threaded builds even small collections are full


def on_another_loop(work):
    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    thread.join()


async def put_three():
    for number in range(3):
        pool.put(bytearray(number))


async def fill():
    await put_three()
    on_another_loop(put_three)
    aiopool.cleanup()
    await put_three()
    on_another_loop(put_three)


asyncio.run(fill())
pool.put(bytearray(5))
before = pool.stats()
