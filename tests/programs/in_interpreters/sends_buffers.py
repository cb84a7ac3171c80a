"""Sends buffers to another interpreter, in the number and size that it asks for, each filled with its own mark."""

import asyncio

import __main__
import aiopool

buffers = aiopool.BufferPool()
pool = aiopool.Pool(list)


async def main(queue, mark, count, size):
    for number in range(count):
        with pool.borrow():
            view = buffers.acquire(size)
            view[:] = bytes([mark + number]) * size
            queue.put((mark + number, view))


asyncio.run(main(__main__.queue, __main__.mark, __main__.count, __main__.size))
