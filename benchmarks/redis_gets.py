"""The cost of a GET of a large value with redis-py's asyncio client, with aiopool's connection class and its own.

Both read the same values from one `redis-server`, which must be in PATH, over its Unix socket, one GET at a time, in
turns. The result is the CPU time of the client's process, kernel included, for one GET.

What could make the figures misleading: the parser. With hiredis, which redis-py uses where it is installed, parsing is
in C; without it, parsing costs more than receiving. And the allocator decides half of the cost of a large value, so
everything is measured with each allocator on the machine; `--here` measures only with that of this process.
"""

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis.asyncio
import uvloop
from _allocators import by_allocator
from _report import arguments, headline, plain_table, show, spread
from _timing import Spread
from rich.table import Table

from aiopool.integrations.redis import PooledUnixDomainSocketConnection

SIZES = {"1 KiB": 2**10, "64 KiB": 2**16, "1 MiB": 2**20, "16 MiB": 2**24}
BYTES = 2**27
"""How many bytes are read for one figure, in at most MOST GETs."""

MOST = 1000

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

CLASSES = {"stock": redis.asyncio.UnixDomainSocketConnection, "pooled": PooledUnixDomainSocketConnection}


Seconds = dict[str, dict[str, dict[str, list[float]]]]
"""Seconds for a GET, one entry a round, by size, loop and class."""


def main() -> None:
    options = arguments(__doc__, rounds=10, quick=3, each_allocator=True)
    of_each = by_allocator(__file__, options, measure_all)
    show(headline(), *(table(allocator, figures["seconds for a GET"]) for allocator, figures in of_each.items()))


def measure_all(rounds: int) -> dict[str, Seconds]:
    """Measure with the allocator of this process."""
    found: Seconds = {size: {loop: {kind: [] for kind in CLASSES} for loop in LOOPS} for size in SIZES}
    with server() as path:
        for _ in range(rounds):
            for size, count in SIZES.items():
                for loop, factory in LOOPS.items():
                    for kind, connection_class in CLASSES.items():
                        with asyncio.Runner(loop_factory=factory) as runner:
                            found[size][loop][kind].append(runner.run(measure(connection_class, path, count)))
    return {"seconds for a GET": found}


def table(allocator: str, found: Seconds) -> Table:
    title = f"CPU time of a GET, divided by that with redis-py's own class, with {allocator}"
    rows = plain_table(title, "value", *LOOPS)
    for size, loops in found.items():
        ratios = [Spread.of_ratios(kinds["pooled"], kinds["stock"]) for kinds in loops.values()]
        rows.add_row(size, *map(spread, ratios))
    return rows


@contextmanager
def server() -> Iterator[str]:
    """Run a `redis-server`; the path of its Unix socket."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "socket")
        command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                while not path.exists():
                    time.sleep(0.01)
                yield str(path)
            finally:
                process.terminate()


async def measure(connection_class: Any, path: str, size: int) -> float:
    """CPU seconds for a GET of `size` bytes."""
    pool = redis.asyncio.ConnectionPool(connection_class=connection_class, path=path)
    times = min(MOST, max(1, BYTES // size))
    async with redis.asyncio.Redis(connection_pool=pool) as client:
        await client.set("value", bytes(size))
        value = await client.get("value")
        start = time.process_time()
        for _ in range(times):
            value = await client.get("value")
        spent = time.process_time() - start
        assert isinstance(value, bytes)
        assert len(value) == size
    await pool.disconnect()
    return spent / times


if __name__ == "__main__":
    main()
