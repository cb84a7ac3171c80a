"""Views that outlive their pool are attributes of `builtins`, the last module to be cleared."""

import builtins

import aiopool

pool = aiopool.BufferPool()
pool.acquire(10)
builtins.view = pool.acquire(1000)
builtins.more = [pool.acquire(1000), pool.acquire(17 << 20)]
del pool
print("ok")
