"""Async functions that use a pool, for tests that run them on loops of their own."""

import weakref


async def get(pool):
    return pool.get()


async def put(pool, *things):
    for thing in things:
        pool.put(thing)


async def fill_plain(pool, n):
    pool.fill(n)


async def use(pool):
    """Get two objects, put them back, and return weak references to them."""
    things = [pool.get(), pool.get()]
    refs = [weakref.ref(thing) for thing in things]
    while things:
        pool.put(things.pop())
    return refs
