"""A TCP proxy that copies no byte: it writes what it receives from one side to the other as it is.

With buffers that are reused by hand this would corrupt data: `write()` returns while a slow peer has not taken the
bytes yet, and the transport still reads the buffer. Here a buffer is reused when the transport is done with it.

Behind the proxy there is a server of random files. Half of the clients read slowly, and each checks its file.
Runs on uvloop where that is installed.
"""

import asyncio
import hashlib
import random
import socket
from asyncio import StreamWriter
from collections.abc import Callable

from aiopool import BufferPool, streams

new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
try:
    from uvloop import new_event_loop as new_loop
except ImportError:
    pass  # asyncio's own loop will do

Address = tuple[str, int]

FILES = {f"file-{number}": random.randbytes(random.randint(1, 6_000_000)) for number in range(10)}
CLIENTS = 10

buffers = BufferPool(name="proxy")


async def forward(reader: streams.StreamReader, writer: StreamWriter) -> None:
    """Write everything that `reader` receives to `writer`, as fast as the peer takes it."""
    while chunk := await reader.read(64 * 1024):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()


async def serve_proxy(upstream: Address, reader: streams.StreamReader, writer: StreamWriter) -> None:
    up_reader, up_writer = await streams.open_connection(*upstream, buffers=buffers)
    async with asyncio.TaskGroup() as directions:
        directions.create_task(forward(reader, up_writer))
        directions.create_task(forward(up_reader, writer))
    for each in (up_writer, writer):
        each.close()
        await each.wait_closed()


async def serve_file(reader: asyncio.StreamReader, writer: StreamWriter) -> None:
    writer.write(FILES[(await reader.readline()).decode().strip()])
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def fetch(proxy: Address, name: str, *, slow: bool) -> int:
    """Get a file through the proxy, and compare it; return its size in bytes."""
    client = socket.create_connection(proxy)
    if slow:
        # Otherwise the kernel would take most of the file, and the proxy would not notice which client is slow.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
    reader, writer = await asyncio.open_connection(sock=client, limit=16 * 1024)
    writer.write(f"{name}\n".encode())
    got = hashlib.sha256()
    size = 0
    while chunk := await reader.read(16 * 1024):
        got.update(chunk)
        size += len(chunk)
        if slow:
            await asyncio.sleep(0)  # let the others go first
    writer.close()
    await writer.wait_closed()
    if got.digest() != hashlib.sha256(FILES[name]).digest():
        raise RuntimeError(f"{name} arrived with wrong bytes")
    return size


async def main() -> None:
    async with asyncio.timeout(60), await asyncio.start_server(serve_file, "127.0.0.1", 0) as upstream:
        address: Address = upstream.sockets[0].getsockname()

        async def serve(reader: streams.StreamReader, writer: StreamWriter) -> None:
            await serve_proxy(address, reader, writer)

        async with await streams.start_server(serve, "127.0.0.1", 0, buffers=buffers) as server:
            proxy: Address = server.sockets[0].getsockname()
            names = random.choices(list(FILES), k=CLIENTS)
            sizes = await asyncio.gather(
                *(fetch(proxy, name, slow=number % 2 == 0) for number, name in enumerate(names))
            )
    stats = buffers.stats()
    print(f"files: {len(sizes)} on {type(asyncio.get_running_loop()).__module__}, each with the right bytes")
    print(f"bytes: {sum(sizes):,}, in {stats.served:,} buffers, {stats.created:,} of them new")
    print(f"in use now: {stats.bytes_in_use:,} bytes; idle: {stats.bytes_idle:,}")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
