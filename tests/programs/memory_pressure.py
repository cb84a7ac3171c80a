"""In a control group of 256 MiB: idle buffers that fill it are freed long before their `idle_timeout`."""

import asyncio
import os
import sys
from pathlib import Path

Path(sys.argv[1]).write_text(str(os.getpid()))

from aiopool import BufferPool  # noqa: E402 - only after the process has joined the group

MIB = 2**20

buffers = BufferPool(max_size=16 * MIB, max_idle_bytes=1024 * MIB, idle_timeout=600)


async def main() -> None:
    held = []
    for _ in range(15):
        view = buffers.acquire(16 * MIB)
        view[::4096] = bytes(len(view) // 4096)  # now it takes memory
        held.append(view)
    del view
    held.clear()
    assert buffers.stats().bytes_idle == 240 * MIB
    async with asyncio.timeout(60):
        while buffers.stats().bytes_idle:
            await asyncio.sleep(0.01)
    print("idle buffers were freed")


asyncio.run(main())
