"""Tasks of one trio nursery that share parsers of length-prefixed records, with a buffer for each record.

A borrowed object goes back when its block ends normally. A task that fails or is cancelled in the middle of a record
leaves a parser with half a record in it: that parser is dropped, and no other task gets it. Here the nursery cancels
slow tasks.

Needs trio.
"""

import random

import trio

from aiopool import BufferPool, Pool

RECORDS, AT_ONCE, SLOW = 200, 10, 3


class Parser:
    """Takes a record in pieces. Its table makes it expensive to create."""

    def __init__(self) -> None:
        self.pieces = 0
        self.table = [number * number for number in range(10_000)]

    def feed(self, piece: memoryview) -> None:
        self.pieces += 1

    def finish(self) -> int:
        pieces, self.pieces = self.pieces, 0
        return pieces


parsers = Pool(Parser, name="parsers")
buffers = BufferPool(name="records")


async def parse(size: int, *, too_slow: bool) -> int:
    """Return how many pieces a record of `size` bytes came in."""
    with parsers.borrow() as parser:
        if parser.pieces:
            raise RuntimeError("a parser with half a record in it was handed out")
        with buffers.acquire(size) as record:
            for start in range(0, size, 1024):
                parser.feed(record[start : start + 1024])
                await trio.lowlevel.checkpoint()
            if too_slow:
                await trio.sleep_forever()
        return parser.finish()


async def main() -> None:
    parsed = 0
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def parse_one(size: int) -> None:
        nonlocal parsed
        async with limiter:
            pieces = await parse(size, too_slow=False)
        parsed += pieces

    async def parse_slowly() -> None:
        await parse(random.randint(1, 64 * 1024), too_slow=True)

    async with trio.open_nursery() as nursery:
        for _ in range(SLOW):
            nursery.start_soon(parse_slowly)
        async with trio.open_nursery() as quick:
            for _ in range(RECORDS):
                quick.start_soon(parse_one, random.randint(1, 64 * 1024))
        nursery.cancel_scope.cancel()
    stats = parsers.stats()
    print(f"records: {RECORDS} in {parsed:,} pieces, and {SLOW} cancelled")
    print(f"parsers: {stats.created} created, {stats.idle} idle, {stats.rejected} dropped with half a record in them")
    print(f"buffers: {buffers.stats().served} acquired, {buffers.stats().bytes_in_use} bytes in use")


if __name__ == "__main__":
    trio.run(main)
