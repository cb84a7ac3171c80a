"""Uses buffers, and leaves some for the end of its interpreter: off-loop, in a cycle, in a module, on the class."""

import asyncio
import sys

import aiopool


class App:
    """Refers to itself, to a view and to the pool."""


pool = aiopool.BufferPool()


async def main():
    held = [pool.acquire(n) for n in (10, 1000, 5000, 100_000, 17 << 20) for _ in range(5)]
    for mark, view in enumerate(held):
        view[:] = bytes([mark]) * len(view)
    assert all(bytes(view) == bytes([mark]) * len(view) for mark, view in enumerate(held))


for _ in range(10):
    asyncio.run(main())
assert pool.stats().hit_rate > 0.5
view = pool.acquire(100)
app = App()
app.itself, app.view, app.pool = app, pool.acquire(100), pool
App.pool = pool
aiopool.BufferPool.instance = pool
sys.kept = pool.acquire(10)
