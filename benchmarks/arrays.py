"""The cost of sending an array to another process, over aiopool's streams and over asyncio's.

Three ways, each with sender and receiver in one process, over a Unix socket: that of the example, with pickle's
out-of-band buffers over `aiopool.streams`; the same over asyncio's streams, where the received array is read-only; and
a plain pickle over asyncio's streams, as in most programs. The result is the CPU time of the process, kernel included,
for one array.

What could make the figures misleading: the allocator decides half of the cost of asyncio's way. With glibc's defaults a
fresh buffer is faulted in again each time. So everything is measured with each allocator on the machine; `--here`
measures only with that of this process.
"""

import asyncio
import pickle
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from _allocators import by_allocator
from _report import arguments, headline, plain_table, show, spread
from _timing import Spread
from rich.table import Table

from aiopool import streams

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from arrays_between_processes import COUNTS, SIZE, buffers, receive, send

Way = tuple[Any, Callable[[Any, Any], Awaitable[None]], Callable[[Any], Awaitable[Any]]]
"""The module with the streams, and how to send and to receive."""

SIZES = {"64 KiB": 2**16, "1 MiB": 2**20, "16 MiB": 2**24}
BYTES = 2**27
"""How many bytes are sent for one figure."""

LIMIT = 2**17


async def receive_readonly(reader: Any) -> Any:
    """Like `receive` of the example, with asyncio's reader."""
    head_size, count = COUNTS.unpack(await reader.readexactly(COUNTS.size))
    sizes = [size for (size,) in SIZE.iter_unpack(await reader.readexactly(count * SIZE.size))]
    head = await reader.readexactly(head_size)
    return pickle.loads(head, buffers=[await reader.readexactly(size) for size in sizes])


async def send_plain(writer: Any, obj: Any) -> None:
    """Send a length and a pickle."""
    message = pickle.dumps(obj, protocol=5)
    writer.write(SIZE.pack(len(message)))
    writer.write(message)
    await writer.drain()


async def receive_plain(reader: Any) -> Any:
    """Receive a length and a pickle."""
    (size,) = SIZE.unpack(await reader.readexactly(SIZE.size))
    return pickle.loads(await reader.readexactly(size))


WAYS: dict[str, Way] = {
    "aiopool, out-of-band": (streams, send, receive),
    "asyncio, out-of-band": (asyncio, send, receive_readonly),
    "asyncio, plain pickle": (asyncio, send_plain, receive_plain),
}


Seconds = dict[str, dict[str, list[float]]]
"""Seconds for an array, one entry a round, by size and way."""


def main() -> None:
    options = arguments(__doc__, rounds=10, quick=3, each_allocator=True)
    of_each = by_allocator(__file__, options, measure_all)
    show(headline(), *(table(allocator, figures["seconds for an array"]) for allocator, figures in of_each.items()))


def measure_all(rounds: int) -> dict[str, Seconds]:
    """Measure with the allocator of this process."""
    found: Seconds = {size: {way: [] for way in WAYS} for size in SIZES}
    for _ in range(rounds):
        for size, count in SIZES.items():
            for name, way in WAYS.items():
                found[size][name].append(asyncio.run(measure(way, count)))
    return {"seconds for an array": found}


def table(allocator: str, found: Seconds) -> Table:
    first, *others = WAYS
    rows = plain_table(f"CPU time of aiopool's way, with {allocator}, divided by that of:", "array", *others)
    for size, ways in found.items():
        rows.add_row(size, *(spread(Spread.of_ratios(ways[first], ways[other])) for other in others))
    return rows


async def measure(way: Way, size: int) -> float:
    """CPU seconds to send and receive an array of `size` bytes."""
    module, send_to, receive_from = way
    array, times = np.ones(size, np.uint8), BYTES // size
    done = asyncio.Event()
    more = {"buffers": buffers} if module is streams else {"limit": LIMIT}

    async def take(reader: Any, writer: Any) -> None:
        for _ in range(times):
            taken = await receive_from(reader)
            assert taken[-1] == 1
        writer.close()
        done.set()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "arrays")
        async with await module.start_unix_server(take, path, **more):
            _, writer = await module.open_unix_connection(path, **more)
            start = process_time()
            for _ in range(times):
                await send_to(writer, array)
            await done.wait()
            spent = process_time() - start
            writer.close()
            await writer.wait_closed()
    return spent / times


if __name__ == "__main__":
    main()
