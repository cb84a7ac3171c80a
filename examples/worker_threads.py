"""An object that goes to a worker thread and comes back, with anyio: on asyncio, uvloop or trio.

Compressing takes long, so worker threads do it. Each task gets a compressor on the loop, gives it to a thread, and puts
it back on the loop: so it lies in the loop's own shard, where the next task finds it first. A thread that needs another
compressor while it works gets one off-loop. Threads report to the loop through `from_thread`, which runs a function on
the loop's thread.

    python examples/worker_threads.py [asyncio|uvloop|trio]

Needs anyio and zstandard, and uvloop or trio if you choose it.
"""

import random
import sys

import anyio
import anyio.from_thread
import anyio.to_thread
import zstandard

from aiopool import Pool, PoolStats

TASKS, ROUNDS = 4, 25

compressors = Pool(zstandard.ZstdCompressor, name="compressors")
ratios: list[float] = []


async def compress_often(seed: int) -> None:
    """A task that repeatedly lends one of the loop's compressors to a worker thread."""
    data = random.Random(seed).choices(b"abcdefgh", k=10_000)
    for _ in range(ROUNDS):
        with compressors.borrow() as compressor:
            await anyio.to_thread.run_sync(compress, compressor, bytes(data))


def compress(compressor: zstandard.ZstdCompressor, data: bytes) -> None:
    """In a worker thread: compress the first half with the loop's compressor, the second with another one."""
    first, second = data[: len(data) // 2], data[len(data) // 2 :]
    size = len(compressor.compress(first))
    with compressors.borrow() as another:  # off-loop: worker threads find what worker threads put
        size += len(another.compress(second))
    anyio.from_thread.run_sync(note, size / len(data))


def note(ratio: float) -> None:
    """On the loop, called by a thread."""
    ratios.append(ratio)


async def main() -> None:
    show("before", compressors.stats())
    async with anyio.create_task_group() as tasks:
        for seed in range(TASKS):
            tasks.start_soon(compress_often, seed)
    show("after", compressors.stats())
    print(f"compressed to {sum(ratios) / len(ratios):.0%} on average, {len(ratios)} times")


def show(when: str, stats: PoolStats) -> None:
    print(f"{when}: {stats.gets} gets, {stats.created} compressors created, {stats.idle} idle")
    for each in stats.processors:
        where = f"processor {each.id}" if each.id else "off-loop"
        print(f"  {where}: {each.gets} gets, {each.private} private, {each.shared} shared, {each.stolen} stolen")


if __name__ == "__main__":
    loop = sys.argv[1] if len(sys.argv) > 1 else "asyncio"
    if loop == "uvloop":
        anyio.run(main, backend_options={"use_uvloop": True})
    else:
        anyio.run(main, backend=loop)
