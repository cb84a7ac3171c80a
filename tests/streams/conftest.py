"""Fixtures of the tests of streams: asyncio's streams beside aiopool's, on TCP, Unix sockets and TLS."""

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager

import pytest
from streaming import reported

reports = pytest.fixture(reported)


@pytest.fixture
def streams(aiopool):
    """The streams under test."""
    return aiopool.streams


@pytest.fixture
def copies(aiopool):
    """Whether all results of streams are copies of what was received, as in pure Python without a GIL."""
    return aiopool.implementation == "python" and aiopool.streams._receive_buffer.COPIES


@pytest.fixture
def results_are_views(copies):
    """Skips the test if results are copies: it checks where the bytes of a view are."""
    if copies:
        pytest.skip("without a GIL, results are copies in pure Python")


@pytest.fixture
def buffers(aiopool):
    """A buffer pool for one test."""
    return aiopool.BufferPool()


@pytest.fixture(scope="module")
def loop():
    """A loop that never runs: it only creates futures."""
    loop = asyncio.new_event_loop()
    loop.set_debug(False)
    yield loop
    loop.close()


@pytest.fixture
def reader(aiopool, buffers, loop):
    """A reader without a transport."""
    return aiopool.streams.StreamReader(buffers, loop=loop)


@pytest.fixture(params=["asyncio", "aiopool"])
def either(request, aiopool):
    """The streams of asyncio, and those of aiopool, for behaviour that must be the same."""
    return asyncio if request.param == "asyncio" else aiopool.streams


@pytest.fixture(scope="session")
def contexts():
    """The TLS contexts of the server and of its clients."""
    trustme = pytest.importorskip("trustme", reason="cffi, which it needs, does not support free-threaded 3.13")
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


class Carrier:
    """A kind of connection: how to serve on it, and how to connect."""

    def __init__(self, kind, path, contexts):
        self.kind, self._path, self._contexts = kind, path, contexts

    @asynccontextmanager
    async def serve(self, streams, callback, **kwds):
        """Run a server."""
        if self.kind == "unix":
            self.server = await streams.start_unix_server(callback, self._path, **kwds)
        elif self.kind == "tls":
            self.server = await streams.start_server(callback, "127.0.0.1", 0, ssl=self._contexts[0], **kwds)
        else:
            self.server = await streams.start_server(callback, "127.0.0.1", 0, **kwds)
        async with self.server:
            yield self.server

    async def connect(self, streams, **kwds):
        """Open a connection: a reader and a writer."""
        if self.kind == "unix":
            return await streams.open_unix_connection(self._path, **kwds)
        address = self.server.sockets[0].getsockname()
        if self.kind == "tls":
            kwds |= {"ssl": self._contexts[1], "server_hostname": "localhost"}
        return await streams.open_connection(*address, **kwds)


@pytest.fixture(params=["tcp", "unix", "tls"])
def carrier(request, tmp_path):
    """Each kind of connection."""
    if request.param == "unix" and not hasattr(socket, "AF_UNIX"):
        pytest.skip("this system has no Unix sockets")
    contexts = request.getfixturevalue("contexts") if request.param == "tls" else None
    return Carrier(request.param, str(tmp_path / "socket"), contexts)
