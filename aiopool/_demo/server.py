"""The server: event loops, each in a thread of its own, that receive messages and answer with their digest.

A message is received into a buffer of its own, through `asyncio.BufferedProtocol`, so that the kernel writes where the
message is to lie and nothing is copied. What the demo compares is only where that buffer comes from: made for the
message and dropped after it, or taken from a pool that all loops share and put back. Everything else is the same code.

A message costs two receives, one for its header and one at least for its body: only after the header is it known how
big a fresh buffer must be. That is dear for small messages, and equally so for both kinds.
"""

import asyncio
import socket
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, cast

from .. import Pool
from .loops import loop_factory
from .wire import HEADER, HOST, digest


class Buffers(NamedTuple):
    """Where the buffers of messages come from and go to."""

    #: a buffer of at least so many bytes
    take: Callable[[int], bytearray]
    #: nobody uses this buffer any more
    give: Callable[[bytearray], object]


def fresh() -> Buffers:
    """A buffer for each message, of exactly its size."""
    return Buffers(take=bytearray, give=lambda buffer: None)


def pooled(pool: Pool[bytearray]) -> Buffers:
    """Buffers of one size, big enough for every message, used again and again."""
    return Buffers(take=lambda size: pool.get(), give=pool.put)


class Connection(asyncio.BufferedProtocol):
    """One client's messages, one after another."""

    def __init__(self, server: "Server", live: "set[Connection]") -> None:
        self.closed = asyncio.Event()
        self._server = server
        self._live = live
        self._header = memoryview(bytearray(HEADER.size))
        # Held from a message's header to its end, so a connection that waits for a message holds none.
        self._buffer: bytearray | None = None
        self._awaited = self._header
        self._filled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, for uvloop's transports are not asyncio's by inheritance.
        self._transport = cast(asyncio.Transport, transport)
        self._live.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._awaited[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled < len(self._awaited):
            return
        self._filled = 0
        if self._buffer is None:
            self._begin()
        else:
            self._finish(self._buffer)

    def _begin(self) -> None:
        (size,) = HEADER.unpack(self._header)
        if not 0 < size <= self._server.size:
            self._transport.abort()
            return
        self._buffer = self._server.buffers.take(size)
        self._awaited = memoryview(self._buffer)[:size]

    def _finish(self, buffer: bytearray) -> None:
        # The answer has bytes of its own. An echo, as a view of the buffer, would go out wrong: a transport may keep
        # the view that it was given long after write returned, when the buffer receives another message already.
        answer = digest(self._awaited)
        self._awaited = self._header
        self._buffer = None
        # Put back before the answer is out: so when the last answer of a round is in, the pool is at rest.
        self._server.buffers.give(buffer)
        self._transport.write(answer)

    def abort(self) -> None:
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        # A buffer of a message that was cut off is dropped with the connection. A pool knows nothing of what it handed
        # out and did not get back.
        self._live.discard(self)
        self.closed.set()


class Server:
    """The loop threads, from `with` to its end. `buffers` may be changed between messages."""

    def __init__(self, loops: int, size: int, buffers: Buffers) -> None:
        self.size = size
        self.buffers = buffers
        listeners = listen(loops)
        self.ports: list[int] = [listener.getsockname()[1] for listener in listeners]
        self._threads = [LoopThread(self, listener) for listener in listeners]

    def __enter__(self) -> "Server":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.join()


class LoopThread(threading.Thread):
    """One event loop in one thread, and with it one processor, for the pool."""

    def __init__(self, server: Server, listener: socket.socket) -> None:
        super().__init__(name="aiopool demo loop")
        self._server = server
        self._listener = listener
        self._runner = asyncio.Runner(loop_factory=loop_factory())
        # Made here and not in the thread: so stop has a loop to call, however early it comes.
        self._loop = self._runner.get_loop()
        self._stopped = asyncio.Event()
        self._live: set[Connection] = set()

    def run(self) -> None:
        with self._runner as runner:
            runner.run(self._serve())

    def stop(self) -> None:
        """Have the thread close its connections and its loop, and end."""
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _serve(self) -> None:
        server = await self._loop.create_server(lambda: Connection(self._server, self._live), sock=self._listener)
        await self._stopped.wait()
        server.close()
        for connection in list(self._live):
            connection.abort()
            await connection.closed.wait()
        await server.wait_closed()


def listen(loops: int) -> list[socket.socket]:
    """A listening socket for each loop: on Linux all on one port, over which the kernel spreads connections.

    Elsewhere `SO_REUSEPORT` is missing, or gives all connections to the socket that was bound last; and of loops that
    share a socket, the first accepts nearly all. So there each loop has a port of its own.
    """
    listeners = []
    port = 0
    for _ in range(loops):
        listener = socket.socket()
        if sys.platform == "linux":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((HOST, port))
        if sys.platform == "linux":
            port = listener.getsockname()[1]
        # At once, and not when a loop comes round to it: so no connection is refused, or goes to the wrong loop.
        listener.listen()
        listeners.append(listener)
    return listeners
