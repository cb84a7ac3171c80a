"""Views, slices and a dict of views are alive as globals."""

import aiopool

pool = aiopool.BufferPool()
pool.acquire(10)
view = pool.acquire(1000)
part = pool.acquire(20_000)[5:]
held = {name: pool.acquire(10) for name in "abc"}
print("ok")
