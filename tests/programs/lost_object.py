"""Loses one object and puts another. With the argument "debug" the loop runs in debug mode."""

import asyncio
import sys

import aiopool

pool = aiopool.Pool(lambda: bytearray(10), name="frames")


async def main():
    pool.get()
    pool.put(pool.get())


asyncio.run(main(), debug="debug" in sys.argv or None)
