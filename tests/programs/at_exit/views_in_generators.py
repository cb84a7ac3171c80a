"""Generators are suspended in a `with` over a view."""

import aiopool

pool = aiopool.BufferPool()
pool.acquire(10)


def generate():
    with pool.acquire(1000) as view:
        yield view
        while True:
            yield view[1:]


async def generate_on_a_loop():
    with pool.acquire(1000) as view:
        yield view


generator = generate()
next(generator)
view = next(generator)
never_started = generate_on_a_loop()
print("ok")
