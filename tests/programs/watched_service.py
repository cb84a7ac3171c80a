"""A service that waits, with a buffer pool and as many pools as its first argument says.

Prints "ready". With the argument "report", a line on stdin makes it print the names in its `__main__` and end.
"""

import asyncio
import sys

import __main__
from aiopool import BufferPool, Pool

pools = [Pool(bytearray, name=f"pool {number}") for number in range(int(sys.argv[1]))]
buffers = BufferPool(name="requests")


async def main():
    for pool in pools:
        pool.put(pool.get())
    view = buffers.acquire(8192)
    print("ready", flush=True)
    if "report" in sys.argv:
        await asyncio.to_thread(input)
        print(sorted(vars(__main__)))
    else:
        await asyncio.Event().wait()


asyncio.run(main())
