"""An object that works on its own loop only, used from tests on every kind of loop."""

import asyncio

import anyio
import pytest
from shop import UVLOOP, events, say

from aiopool.testing import pooled_fixture


class Connection:
    """Works only on its own loop, as real connections do."""

    def __init__(self):
        self.lock = asyncio.Lock()
        self.loop = asyncio.get_running_loop()

    async def query(self, text, *, times=1):
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        if text == "wrong":
            raise LookupError(text)
        return text * times

    async def wait(self):
        try:
            await asyncio.sleep(100)
        finally:
            say("cancelled")


@pooled_fixture(loop_bound=True, reset=lambda connection: say("reset"))
async def connection():
    return Connection()


async def use(connection):
    assert await connection.run(Connection.query, "a", times=3) == "aaa"
    assert await connection.run(lambda each: each.loop.is_running())
    with pytest.raises(LookupError, match="wrong"):
        await connection.run(Connection.query, "wrong")


@pytest.mark.asyncio
async def test_asyncio(connection):
    await use(connection)
    with pytest.raises(RuntimeError, match="await run"):
        connection.run_sync(Connection.query, "a")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(connection.run(Connection.wait), 0.01)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio", UVLOOP])
async def test_anyio(connection):
    await use(connection)
    with anyio.move_on_after(0.01):
        await connection.run(Connection.wait)


def test_plain(connection):
    assert connection.run_sync(Connection.query, "b") == "b"
    assert "Connection" in repr(connection)


def test_the_object_itself_fails_on_another_loop(connection):
    with pytest.raises(AssertionError):
        asyncio.run(connection._obj.query("a"))


def test_counts():
    assert events.count("reset") == 6
    assert events.count("cancelled") == 4
