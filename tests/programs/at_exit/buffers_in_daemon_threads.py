"""Daemon threads, one of them with a loop, go on using a pool."""

import asyncio
import threading

import aiopool

pool = aiopool.BufferPool()
started = threading.Barrier(3)


def churn():
    started.wait()
    while True:
        held = [pool.acquire(n) for n in (10, 1000, 20_000)]


async def churn_on_a_loop():
    started.wait()
    while True:
        held = [pool.acquire(n) for n in (10, 1000, 20_000)]
        held.clear()
        await asyncio.sleep(0)


threading.Thread(target=churn, daemon=True).start()
threading.Thread(target=asyncio.run, args=(churn_on_a_loop(),), daemon=True).start()
started.wait()
print("ok")
