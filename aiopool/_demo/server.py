"""The server: event loops, each in its own thread, that receive messages and answer with their digest.

Each loop runs two servers, each on its own port: one with `asyncio.start_server`, and one with
`aiopool.streams.start_server` and a buffer pool that all loops share. Everything else is asyncio's default, and both
use the same handler. So the results show the effect of changing that one call.

Each loop has its own ports and the same number of connections. If all loops shared a port, the kernel would decide
which loop gets which connection, and that could favour one kind of streams.
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
    """Answer messages of up to `largest` bytes, one after another, until the client disconnects."""
    try:
        while True:
            (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
            if not 0 < size <= largest:
                break
            # Not in a variable, which would keep the message alive while this waits for the next one.
            writer.write(digest(await reader.readexactly(size)))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has disconnected
    finally:
        writer.close()


class Server:
    """Runs the loop threads during a `with` block."""

    def __init__(self, loops: int, size: int, buffers: BufferPool) -> None:
        """`size` is the largest message, in bytes. aiopool's streams receive into `buffers`."""
        self._threads = [LoopThread(size, buffers) for _ in range(loops)]

    def ports(self, kind: Kind) -> list[int]:
        """The ports for this kind of streams, one for each loop."""
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
    """One event loop in one thread, and so one processor of the pool."""

    def __init__(self, size: int, buffers: BufferPool) -> None:
        super().__init__(name="aiopool demo loop")
        # They listen from now on, even before the loops run, so no connection is refused.
        self.listeners: dict[Kind, socket.socket] = {kind: socket.create_server((HOST, 0)) for kind in KINDS}
        self._size = size
        self._buffers = buffers
        self._runner = asyncio.Runner(loop_factory=loop_factory())
        # Created here and not in the thread, so that `stop` has a loop to call even if it is called very early.
        self._loop = self._runner.get_loop()
        self._stopped = asyncio.Event()
        self._live: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def run(self) -> None:
        with self._runner as runner:
            runner.run(self._serve())

    def stop(self) -> None:
        """Let the thread close its connections and its loop, and end."""
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
