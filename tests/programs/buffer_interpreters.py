"""Views that are alive at the end of an interpreter, beside others."""

import os

import _interpreters as interpreters

import aiopool

PROGRAM = f'''if True:
    import asyncio, sys, aiopool

    class App:
        pass

    pool = aiopool.BufferPool()

    async def main():
        held = [pool.acquire(n) for n in (10, 1000, 5000, 100_000, 17 << 20) for _ in range(5)]
        for mark, view in enumerate(held):
            view[:] = bytes([mark]) * len(view)
        assert all(bytes(view) == bytes([mark]) * len(view) for mark, view in enumerate(held))

    for _ in range(10):
        asyncio.run(main())
    assert pool.stats().hit_rate > 0.5
    # What the end of the interpreter finds alive: off-loop, in a cycle, in another module, on the class.
    view = pool.acquire(100)
    app = App(); app.me = app; app.view = pool.acquire(100); app.pool = pool
    App.pool = pool
    aiopool.BufferPool.instance = pool
    sys.kept = pool.acquire(10)
    assert aiopool.implementation == "{aiopool.implementation}"
'''

for _ in range(3):
    id = interpreters.create()
    failure = interpreters.run_string(id, PROGRAM)
    interpreters.destroy(id)
    assert failure is None, failure
print("ok", flush=True)
os._exit(0)  # to see our own doings, not how CPython's shutdown copes with what other interpreters imported
