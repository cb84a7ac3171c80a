"""Uses pools, and leaves some for the end of its interpreter."""

import asyncio

import aiopool


class Circle(aiopool.Pool):
    """Refers to itself."""


async def main():
    pool = aiopool.Pool(bytearray, name="inside")
    others = [aiopool.Pool(list) for _ in range(20)]
    for _ in range(300):
        with pool.borrow() as one, pool.borrow() as two:
            assert one is not two
        async with pool.borrow():
            pass
        for other in others:
            other.put(other.get())
        assert aiopool.current_processor().id == 1
    # Objects that are alive, and in cycles, at the end of the interpreter.
    circle = Circle()
    circle.itself = circle
    for _ in range(3):
        circle.put([circle, circle.borrow(), aiopool.current_processor()])
    aiopool.cleanup()
    aiopool.pool.kept = circle


aiopool.pool = Circle()
asyncio.run(main())
