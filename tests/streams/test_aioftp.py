"""aioftp, client and server, over aiopool's streams: a program that reads and writes in many ways."""

import asyncio
from functools import partial

import pytest
from loops import PATIENCE
from streaming import MIB, ON_EACH_LOOP

aioftp = pytest.importorskip("aioftp", reason="aioftp, of the extra test, is not installed")

pytestmark = ON_EACH_LOOP


@pytest.fixture
def over_aiopool(streams, monkeypatch):
    """Both ends use aiopool's streams."""
    monkeypatch.setattr(asyncio, "start_server", partial(streams.start_server, results=bytes))
    monkeypatch.setattr("aioftp.client.open_connection", partial(streams.open_connection, results=bytes))


@pytest.mark.usefixtures("over_aiopool")
async def test_files_go_there_and_back():
    server = aioftp.Server(path_io_factory=aioftp.MemoryPathIO)
    await server.start("127.0.0.1", 0)
    host, port = server.server.sockets[0].getsockname()
    files = {f"file{number}": bytes([number]) * size for number, size in enumerate([0, 1, 100_000, 3 * MIB])}
    try:
        async with asyncio.timeout(PATIENCE), aioftp.Client.context(host, port) as client:
            for name, content in files.items():
                async with client.upload_stream(name) as stream:
                    await stream.write(content)
            assert {path.name for path, _ in await client.list()} == set(files)
            for name, content in files.items():
                async with client.download_stream(name) as stream:
                    assert b"".join([block async for block in stream.iter_by_block(10_000)]) == content
    finally:
        await server.close()
