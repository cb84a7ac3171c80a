"""Compressed arrays over a stream: received, decompressed and summed, with no array copied on the way.

A message is the length of an array of float32, and the array compressed with zstd. `readexactly` returns a view of the
received bytes, a pooled decompressor writes into a pooled buffer of the right size, and NumPy reads that buffer. The
buffer is reused when the last array over it is gone, even if an array is kept in a list for a while, as here.

Needs numpy and zstandard. Runs on uvloop where that is installed.
"""

import asyncio
import struct
from asyncio import StreamWriter
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import zstandard

from aiopool import BufferPool, Pool, streams

new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
try:
    from uvloop import new_event_loop as new_loop
except ImportError:
    pass  # asyncio's own loop will do

HEADER, ANSWER = struct.Struct("!II"), struct.Struct("!d")
MAX_BYTES = 4 * 1024 * 1024
CLIENTS, MESSAGES, KEPT = 4, 25, 3

Array = np.ndarray[Any, np.dtype[np.float32]]

buffers = BufferPool(max_size=MAX_BYTES, name="arrays")
# A decompressor takes longer to create than to use on a small message, and serves one task at a time.
decompressors = Pool(zstandard.ZstdDecompressor, name="decompressors")


def decompress(compressed: memoryview, size: int) -> memoryview:
    raw = buffers.acquire(size)
    with decompressors.borrow() as decompressor, decompressor.stream_reader(compressed) as source:
        filled = 0
        while filled < size and (count := source.readinto(raw[filled:])):
            filled += count
    if filled < size:
        raise ValueError(f"an array of {size} bytes was announced, but has {filled}")
    return raw


async def serve(reader: streams.StreamReader, writer: StreamWriter) -> None:
    latest: deque[Array] = deque(maxlen=KEPT)
    try:
        while True:
            compressed_size, size = HEADER.unpack(await reader.readexactly(HEADER.size))
            if size > MAX_BYTES:
                raise ValueError(f"an array of {size} bytes is too big")
            array: Array = np.frombuffer(decompress(await reader.readexactly(compressed_size), size), np.float32)
            latest.append(array)
            writer.write(ANSWER.pack(sum(float(each.sum(dtype=np.float64)) for each in latest)))
            await writer.drain()
    except asyncio.IncompleteReadError:
        pass  # the client has finished
    writer.close()


async def send_arrays(address: tuple[str, int], seed: int) -> None:
    """Send arrays, and check that the sums of the last few come back."""
    reader, writer = await streams.open_connection(*address)
    random = np.random.default_rng(seed)
    compressor = zstandard.ZstdCompressor()
    sums: deque[float] = deque(maxlen=KEPT)
    for _ in range(MESSAGES):
        array = random.integers(-100, 100, random.integers(1, MAX_BYTES // 8)).astype(np.float32)
        compressed = compressor.compress(array.tobytes())
        writer.write(HEADER.pack(len(compressed), array.nbytes) + compressed)
        sums.append(float(array.sum(dtype=np.float64)))
        (answer,) = ANSWER.unpack(await reader.readexactly(ANSWER.size))
        if answer != sum(sums):
            raise RuntimeError(f"the sum of the last arrays is {sum(sums)}, but {answer} came back")
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    async with asyncio.timeout(60), await streams.start_server(serve, "127.0.0.1", 0, buffers=buffers) as server:
        address = server.sockets[0].getsockname()
        await asyncio.gather(*(send_arrays(address, seed) for seed in range(CLIENTS)))
    stats = buffers.stats()
    print(f"arrays: {CLIENTS * MESSAGES} on {type(asyncio.get_running_loop()).__module__}, each with the right sum")
    print(f"buffers: {stats.served:,}, {stats.created:,} of them new")
    print(f"decompressors: {decompressors.stats().created}, for {decompressors.stats().gets} messages")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
