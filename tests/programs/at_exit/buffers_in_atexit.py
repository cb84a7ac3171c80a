"""Functions that run at exit use a pool, and keep the views."""

import atexit

import aiopool

pool = aiopool.BufferPool()
pool.acquire(10)
early = []


def at_the_end(when):
    for n in (10, 1000, 20_000, 17 << 20):
        view = pool.acquire(n)
        view[:2] = b"ok"
        early.append(view[:2])
    assert all(bytes(view) == b"ok" for view in early)
    if when == "first":
        early.clear()


atexit.register(at_the_end, "last")
atexit.register(at_the_end, "first")
print("ok")
