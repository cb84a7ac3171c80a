"""redis-py's asyncio client over aiopool's streams, against a real server, in both implementations, with both parsers.

tests/integrations/test_redis_connections.py has the tests of its commands.
"""

import asyncio

import pytest
from redis_servers import NEEDS_REDIS_SERVER, redis_server
from streaming import MIB, ON_EACH_LOOP

redis = pytest.importorskip("redis.asyncio", reason="redis, of the extra test, is not installed")
parsers = pytest.importorskip("redis._parsers", reason="another version of redis-py has its parsers elsewhere")

pytestmark = [*ON_EACH_LOOP, NEEDS_REDIS_SERVER]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running server: the path of its Unix socket."""
    with redis_server(tmp_path_factory.mktemp("redis"), "--port", "0") as path:
        yield path


@pytest.fixture(params=["Python", "hiredis"])
async def client(request, aiopool, server):
    """A client whose connections use aiopool's streams."""
    if request.param == "hiredis":
        pytest.importorskip("hiredis")
        parser = parsers._AsyncHiredisParser
    else:
        parser = parsers._AsyncRESP2Parser

    class Connection(redis.UnixDomainSocketConnection):
        async def _connect(self):
            self._reader, self._writer = await aiopool.streams.open_unix_connection(self.path, results=bytes)
            await self.on_connect()

    pool = redis.ConnectionPool(connection_class=Connection, path=str(server), parser_class=parser, protocol=2)
    async with redis.Redis(connection_pool=pool) as client:
        await client.flushall()
        yield client
    await pool.disconnect()


async def test_large_values(client):
    values = [bytes([number]) * size for number, size in enumerate([1, 10_000, 100_000, MIB, 8 * MIB])]
    for number, value in enumerate(values):
        await client.set(f"value {number}", value)
    assert await client.mget([f"value {number}" for number in range(len(values))]) == values


async def test_many_at_once(client):
    async def count(name):
        for _ in range(50):
            await client.incr(name)

    await asyncio.gather(*(count(f"counter {number % 5}") for number in range(20)))
    assert await client.mget([f"counter {number}" for number in range(5)]) == [b"200"] * 5
