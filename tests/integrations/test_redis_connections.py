"""redis-py with aiopool's connection classes and with its own, against a real server: the same answers."""

import asyncio

import pytest
import pytest_asyncio
from loops import PATIENCE, free_port
from redis_servers import NEEDS_REDIS_SERVER, redis_server

from aiopool import streams

redis = pytest.importorskip("redis.asyncio", reason="redis, of the extra test, is not installed")
parsers = pytest.importorskip("redis._parsers", reason="another version of redis-py has its parsers elsewhere")
trustme = pytest.importorskip("trustme")
integration = pytest.importorskip("aiopool.integrations.redis")

pytestmark = [
    pytest.mark.asyncio,
    NEEDS_REDIS_SERVER,
]

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running server: the arguments to connect to it, by transport."""
    folder = tmp_path_factory.mktemp("redis")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    plain, tls = free_port(), free_port()
    options = [
        *("--port", str(plain), "--tls-port", str(tls), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(folder / "server.pem"), "--tls-key-file", str(folder / "server.pem")),
        *("--tls-ca-cert-file", str(folder / "ca.pem")),
    ]
    with redis_server(folder, *options) as path:
        yield {
            "tcp": {"host": "127.0.0.1", "port": plain},
            "tls": {"host": "localhost", "port": tls, "ssl_ca_certs": str(folder / "ca.pem")},
            "unix": {"path": str(path)},
        }


STOCK = {
    "tcp": redis.Connection,
    "tls": redis.SSLConnection,
    "unix": redis.UnixDomainSocketConnection,
}
POOLED = {
    "tcp": integration.PooledConnection,
    "tls": integration.PooledSSLConnection,
    "unix": integration.PooledUnixDomainSocketConnection,
}


@pytest.fixture(params=["tcp", "tls", "unix"])
def transport(request):
    return request.param


@pytest.fixture(params=["Python", "hiredis"])
def parser(request):
    """Arguments that choose the parser of the answers."""
    if request.param == "Python":
        return {"parser_class": parsers._AsyncRESP2Parser, "protocol": 2}
    pytest.importorskip("hiredis")
    return {"parser_class": parsers._AsyncHiredisParser}


@pytest_asyncio.fixture(params=[STOCK, POOLED], ids=["stock", "pooled"])
async def connect(request, server, transport, parser):
    """Create a client with these arguments."""
    pools = []

    def connect(**kwargs):
        connection_class = request.param[transport]
        pool = redis.ConnectionPool(connection_class=connection_class, **server[transport], **parser, **kwargs)
        pools.append(pool)
        return redis.Redis(connection_pool=pool)

    await connect().flushall()
    yield connect
    for pool in pools:
        await pool.disconnect()


async def test_values_of_all_sizes(connect):
    client = connect()
    values = [bytes([number]) * size for number, size in enumerate([0, 1, 1000, 64 << 10, MIB, 5 * MIB])]
    for number, value in enumerate(values):
        await client.set(number, value)
    found = await client.mget(range(len(values)))
    assert found == values
    assert {type(value) for value in found} == {bytes}


async def test_decoded_responses(connect):
    client = connect(decode_responses=True)
    await client.set("name", "Zoë " * 50_000)
    assert await client.get("name") == "Zoë " * 50_000
    await client.hset("hash", mapping={"ä": "1", "b": "ü"})
    assert await client.hgetall("hash") == {"ä": "1", "b": "ü"}


async def test_a_pipeline(connect):
    pipeline = connect().pipeline(transaction=True)
    for number in range(500):
        pipeline.set(number, b"%d" % number * 100)
        pipeline.get(number)
    assert (await pipeline.execute())[1::2] == [b"%d" % number * 100 for number in range(500)]


async def test_publish_and_subscribe(connect):
    client = connect(decode_responses=True)
    async with asyncio.timeout(PATIENCE), client.pubsub() as subscriber:
        await subscriber.subscribe("news")
        messages = subscriber.listen()
        assert (await anext(messages))["type"] == "subscribe"
        for number in range(50):
            await client.publish("news", f"{number} " * 5000)
        assert [(await anext(messages))["data"] for _ in range(50)] == [f"{number} " * 5000 for number in range(50)]


async def test_errors_reach_the_caller(connect):
    client = connect()
    await client.set("text", "x")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        await client.incr("text")
    assert await client.get("text") == b"x"


async def test_a_command_works_after_a_cancelled_one(connect):
    client, another = connect(), connect()
    await client.ping()  # a cancelled handshake would be another test
    waiting = asyncio.create_task(client.blpop("nothing", timeout=PATIENCE))
    async with asyncio.timeout(PATIENCE):
        while not (await another.info("clients"))["blocked_clients"]:
            await asyncio.sleep(0.001)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await client.ping()


async def test_a_server_that_is_not_there():
    client = redis.Redis(
        connection_pool=redis.ConnectionPool(connection_class=integration.PooledConnection, port=free_port())
    )
    with pytest.raises(redis.ConnectionError):
        await client.ping()
    await client.connection_pool.disconnect()


async def test_received_data_lies_in_pooled_buffers(server, transport):
    """The answers alone would not show this."""
    for classes, package in (STOCK, "asyncio"), (POOLED, "aiopool"):
        pool = redis.ConnectionPool(connection_class=classes[transport], **server[transport])
        connection = pool.make_connection()
        await connection.connect()
        assert type(connection._reader).__module__.partition(".")[0] == package
        assert (connection._writer.get_extra_info("ssl_object") is not None) == (transport == "tls")
        await connection.disconnect()


async def test_views_instead_of_bytes_would_be_noticed(server, monkeypatch):
    """A negative control: redis-py needs bytes."""
    pytest.importorskip("hiredis")
    monkeypatch.setattr(integration._Asyncio, "open_connection", staticmethod(streams.open_connection))
    options = {"parser_class": parsers._AsyncHiredisParser, **server["tcp"]}
    pool = redis.ConnectionPool(connection_class=integration.PooledConnection, **options)
    with pytest.raises(redis.ConnectionError):
        await redis.Redis(connection_pool=pool).get("name")
    await pool.disconnect()
