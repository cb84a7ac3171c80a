"""Views of a pool that zeroes its blocks, as a global and in a cycle."""

import aiopool

pool = aiopool.BufferPool(wipe=True)
view = pool.acquire(1000)
cycle = [pool.acquire(10), pool.acquire(17 << 20)]
cycle.append(cycle)
print("ok")
