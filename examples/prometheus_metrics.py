"""A service with a /metrics page, where Prometheus can scrape the figures of its pools.

The service compresses the messages it receives, with pooled compressors and buffers. `prometheus_client` serves the
page from a thread of its own; the service itself counts nothing. At the end the program scrapes itself and prints some
lines.

Needs prometheus_client and zstandard.
"""

import asyncio
import urllib.request
from asyncio import StreamWriter

import zstandard
from prometheus_client import CollectorRegistry, start_http_server

from aiopool import BufferPool, Pool, streams
from aiopool.integrations.prometheus import PoolCollector

MESSAGES = 200
SHOWN = (
    'aiopool_buffer_created_total{pool="requests"',
    'aiopool_pool_created_total{pool="compressors"}',
    'aiopool_pool_gets_total{pool="compressors",result="private"}',
)

buffers = BufferPool(name="requests")
compressors = Pool(zstandard.ZstdCompressor, name="compressors")


async def serve(reader: streams.StreamReader, writer: StreamWriter) -> None:
    try:
        while True:
            size = int.from_bytes(await reader.readexactly(4), "big")
            request = await reader.readexactly(size)
            with compressors.borrow() as compressor:
                answer = compressor.compress(request)
            writer.write(len(answer).to_bytes(4, "big") + answer)
            await writer.drain()
    except asyncio.IncompleteReadError:
        pass  # the client has finished
    writer.close()


async def send_messages(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    for number in range(MESSAGES):
        message = bytes([number]) * 65_536
        writer.write(len(message).to_bytes(4, "big") + message)
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
        if zstandard.decompress(answer) != message:
            raise RuntimeError(f"message {number} came back as something else")
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    async with await streams.start_server(serve, "127.0.0.1", 0, buffers=buffers) as server:
        await send_messages(server.sockets[0].getsockname())


def scrape(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        for line in page.read().decode().splitlines():
            if line.startswith(SHOWN):
                print(line)


if __name__ == "__main__":
    registry = CollectorRegistry()  # a service would use prometheus_client.REGISTRY
    registry.register(PoolCollector())
    metrics, thread = start_http_server(0, "127.0.0.1", registry)
    asyncio.run(main())
    scrape(metrics.server_port)
    metrics.shutdown()
    metrics.server_close()
    thread.join()
