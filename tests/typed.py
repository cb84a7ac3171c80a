"""What the type checkers make of the interface. They read this file; nobody runs it."""

from typing import assert_type

import aiopool

made = aiopool.Pool(lambda: bytearray(10), reset=lambda buffer: buffer.clear())
assert_type(made, aiopool.Pool[bytearray])
assert_type(made.get(), bytearray)
made.put(bytearray())
with made.borrow() as buffer:
    assert_type(buffer, bytearray)

given = aiopool.Pool[str | None]()
assert_type(given.get(), str | None)
given.put("something")
given.put(None)


async def borrows() -> None:
    """The same on a loop."""
    async with made.borrow() as buffer:
        assert_type(buffer, bytearray)


assert_type(made.stats().hit_rate, float)
assert_type(aiopool.current_processor(), aiopool.Processor | None)
assert_type(aiopool.implementation, str)

made.put("no buffer")  # type: ignore[arg-type]
aiopool.Pool(3)  # type: ignore[call-overload]
