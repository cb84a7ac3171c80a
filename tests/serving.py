"""Helpers for the tests of servers: an application that reports what it received, a server in a thread, a client."""

import asyncio
import hashlib
import importlib
import socket
import sys
import threading
from contextlib import contextmanager

import pytest

KIB = 1024
MIB = 1024 * KIB
PATIENCE = 30


class Application:
    """An ASGI application that reports what it received. `events` has the messages of each path under /record."""

    def __init__(self):
        self.events = {}
        self.sockets = None
        self.gate = threading.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self.websocket(receive, send)
        else:
            await getattr(self, scope["path"].split("/")[1])(scope, receive, send)

    async def lifespan(self, receive, send):
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})

    async def websocket(self, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})

    async def answer(self, send, content, *headers, status=200):
        length = (b"content-length", b"%d" % len(content))
        await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
        await send({"type": "http.response.body", "body": content})

    async def digest(self, scope, receive, send):
        """Read the whole body, and answer with its length and digest."""
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            assert type(message["body"]) is bytes
            body += message["body"]
            more = message["more_body"]
        await self.answer(send, described(body))

    async def early(self, scope, receive, send):
        """Answer without reading the body."""
        await self.answer(send, b"early")

    async def close(self, scope, receive, send):
        """Answer without reading the body, and close the connection."""
        await self.answer(send, b"closed", (b"connection", b"close"))

    async def progress(self, scope, receive, send):
        """Answer each message with the number of bytes received so far."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        count, more = 0, True
        while more:
            message = await receive()
            count += len(message["body"])
            more = message["more_body"]
            await send({"type": "http.response.body", "body": b"%d\n" % count, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def gated(self, scope, receive, send):
        """Read nothing until the gate is open."""
        self.events[scope["path"]] = []
        await asyncio.to_thread(self.gate.wait)
        await self.digest(scope, receive, send)

    async def record(self, scope, receive, send):
        """Record each message until the client disconnects or the body is complete."""
        events = self.events[scope["path"]] = []
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                events.append((described(body), "disconnect"))
                return
            body += message["body"]
            events.append((len(body), "more" if message["more_body"] else "complete"))
            if not message["more_body"]:
                await self.answer(send, described(body))
                return

    async def fail(self, scope, receive, send):
        """Read a part of the body, and raise."""
        await receive()
        raise RuntimeError("as the test wants")


def described(body):
    return b"%d %s" % (len(body), hashlib.sha256(body).hexdigest().encode())


def pooled_protocol(aiopool):
    """The protocol class of this copy of the package."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.partition(".")[0] == "aiopool"]:
            patch.delitem(sys.modules, name)
        patch.setitem(sys.modules, "aiopool", aiopool)
        patch.setitem(sys.modules, "aiopool._buffer_pool", aiopool._buffer_pool)
        return importlib.import_module("aiopool.integrations.uvicorn").PooledHttpToolsProtocol


@contextmanager
def serving(protocol, application, loop="asyncio", **options):
    """Run a uvicorn server in its own thread during a block. Yields its address."""
    uvicorn = importlib.import_module("uvicorn")
    options = {"log_level": "critical", "access_log": False, "timeout_graceful_shutdown": 5, **options}
    server = uvicorn.Server(uvicorn.Config(application, http=protocol, loop=loop, **options))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


class Client:
    """A connection that can send anything, and that reads responses one by one."""

    def __init__(self, address, context=None):
        self.socket = socket.create_connection(address, PATIENCE)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()
        self.socket.close()

    def send(self, *parts):
        """Send each part in a separate system call."""
        for part in parts:
            self.socket.sendall(part)

    def head(self):
        """The status and the headers of the next response; None at the end of the stream."""
        line = self.file.readline()
        if not line:
            return None
        headers = {}
        while (header := self.file.readline().rstrip()) != b"":
            name, _, value = header.partition(b":")
            headers[name.lower()] = value.strip()
        return int(line.split()[1]), headers

    def chunk(self):
        """The next chunk of a response; empty at its end."""
        size = int(self.file.readline(), 16)
        return self.file.read(size + 2)[:size]

    def answer(self):
        """The status and the content of the next response; None at the end of the stream."""
        head = self.head()
        if head is None:
            return None
        status, headers = head
        if b"content-length" in headers:
            return status, self.file.read(int(headers[b"content-length"]))
        if headers.get(b"transfer-encoding") == b"chunked":
            return status, b"".join(iter(self.chunk, b""))
        return status, b""


def head(path, length=None, *headers, method=b"POST"):
    lines = [b"%s %s HTTP/1.1" % (method, path), b"Host: localhost", *headers]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join([*lines, b"", b""])


def chunked(body, size):
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])
