"""The server: event loops, each in a thread of its own, that receive messages and answer with their digest.

Each loop serves twice, on a port for each kind of streams: over `asyncio.start_server`, and over
`aiopool.streams.start_server` with a buffer pool that all loops share. The rest is as asyncio has it by default, and
the handler is the same function. Whatever the demo finds is what changing that one call does.

Each loop has ports of its own, and as many connections as any other. A port that all loops share would not do: there
the kernel decides who gets which connection, and one kind might fare better for it.
"""

import asyncio
import socket
import threading
from types import TracebackType

from .. import streams
from .._buffer_pool import BufferPool
from .loops import loop_factory
from .wire import HEADER, HOST, KINDS, Kind, digest

StreamReader = asyncio.StreamReader | streams.StreamReader


async def serve(reader: StreamReader, writer: asyncio.StreamWriter, largest: int) -> None:
    """Answer messages of up to `largest` bytes, one after another, until the client goes."""
    try:
        while True:
            (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
            if not 0 < size <= largest:
                break
            # In no variable, which would keep the message while the next one is awaited.
            writer.write(digest(await reader.readexactly(size)))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has gone
    finally:
        writer.close()


class Server:
    """The loop threads, from `with` to its end."""

    def __init__(self, loops: int, size: int, buffers: BufferPool) -> None:
        """`size`: the largest message, in bytes; `buffers`: what aiopool's streams receive into."""
        self._threads = [LoopThread(size, buffers) for _ in range(loops)]

    def ports(self, kind: Kind) -> list[int]:
        """Where to connect to for this kind of streams: a port for each loop."""
        return [thread.listeners[kind].getsockname()[1] for thread in self._threads]

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

    def __init__(self, size: int, buffers: BufferPool) -> None:
        super().__init__(name="aiopool demo loop")
        # They listen at once, and not when a loop comes round to it: so no connection is refused.
        self.listeners: dict[Kind, socket.socket] = {kind: socket.create_server((HOST, 0)) for kind in KINDS}
        self._size = size
        self._buffers = buffers
        self._runner = asyncio.Runner(loop_factory=loop_factory())
        # Made here and not in the thread: so stop has a loop to call, however early it comes.
        self._loop = self._runner.get_loop()
        self._stopped = asyncio.Event()
        self._live: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def run(self) -> None:
        with self._runner as runner:
            runner.run(self._serve())

    def stop(self) -> None:
        """Have the thread close its connections and its loop, and end."""
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _serve(self) -> None:
        servers = (
            await asyncio.start_server(self._connected, sock=self.listeners["asyncio"]),
            await streams.start_server(self._connected, sock=self.listeners["aiopool"], buffers=self._buffers),
        )
        await self._stopped.wait()
        for server in servers:
            server.close()
        for writer in self._live.values():
            writer.transport.abort()
        if self._live:
            await asyncio.wait(self._live)
        for server in servers:
            await server.wait_closed()

    def _connected(self, reader: StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(serve(reader, writer, self._size))
        self._live[task] = writer
        task.add_done_callback(self._live.__delitem__)
