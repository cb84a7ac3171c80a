"""A cache of pages in Redis, read through a connection that receives into pooled buffers.

Only the connection class differs from any other program on redis-py's asyncio client. The address of the server is an
argument, by default `redis://localhost:6379`. The program deletes its pages there at the end.

Needs the extra `redis`, and a redis-server.
"""

import asyncio
import hashlib
import random
import sys

import redis.asyncio

from aiopool.integrations.redis import PooledConnection

PAGES, SIZE = 20, 1024 * 1024


async def fill(client: redis.asyncio.Redis) -> dict[str, str]:
    """Store random pages, and return the digest of each."""
    pages = {f"aiopool-example-{number}": random.randbytes(SIZE) for number in range(PAGES)}
    await client.mset(pages)
    return {name: hashlib.sha256(page).hexdigest() for name, page in pages.items()}


async def main(address: str) -> None:
    connections = redis.asyncio.ConnectionPool.from_url(address, connection_class=PooledConnection)
    client = redis.asyncio.Redis(connection_pool=connections)
    try:
        digests = await fill(client)
        for name, digest in digests.items():
            page = await client.get(name)
            assert isinstance(page, bytes)  # as with any other connection class
            if hashlib.sha256(page).hexdigest() != digest:
                raise RuntimeError(f"{name} is not what was stored")
        print(f"{await client.delete(*digests)} pages of {SIZE} bytes, each as it was stored")
    finally:
        await connections.disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "redis://localhost:6379"))
