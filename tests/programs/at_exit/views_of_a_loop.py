"""Views of a loop that has ended are globals, and attributes of `sys`."""

import asyncio
import sys

import aiopool

pool = aiopool.BufferPool()


async def main():
    global view
    view = pool.acquire(1000)
    pool.acquire(1000)
    sys.kept = pool.acquire(1000)


asyncio.run(main())
print("ok")
