"""The server of `connections.py`, in a process of its own: it answers each frame with one byte.

Four servers do that. "protocol" is the least that asyncio needs: a protocol that counts the bytes as they arrive, and
keeps none. "no reader" also counts bytes, and has a task and a writer for each connection, as asyncio's streams have,
but no reader. The others read frames with `readexactly`, over asyncio's streams and over aiopool's.
"""

import asyncio
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiopool import streams

HEADER = struct.Struct("!I")
ANSWER = b"!"


def count(self: Any, data: bytes) -> None:
    """`data_received`: answers when the whole frame has arrived. For clients that wait for the answer."""
    if self._missing == 0:
        self._missing = HEADER.size + HEADER.unpack_from(data)[0]
    self._missing -= len(data)
    if self._missing == 0:
        self._transport.write(ANSWER)


class CountingProtocol(asyncio.Protocol):
    """The least that asyncio needs."""

    __slots__ = ("_missing", "_transport")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._missing = 0

    data_received = count


class CountingStreamProtocol(asyncio.StreamReaderProtocol):
    """The same under asyncio's streams."""

    _missing = 0

    data_received = count


async def wait(reader: Any, writer: asyncio.StreamWriter) -> None:
    await writer.wait_closed()


async def serve(reader: Any, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
            await reader.readexactly(size)
            writer.write(ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def start_counting(listener: socket.socket) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(CountingProtocol, sock=listener, backlog=1024)


async def start_without_reader(listener: socket.socket) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    # asyncio's protocol works without a reader, whatever its types say.
    no_reader = cast(asyncio.StreamReader, None)
    return await loop.create_server(lambda: CountingStreamProtocol(no_reader, wait), sock=listener, backlog=1024)


async def start_asyncio(listener: socket.socket) -> asyncio.Server:
    return await asyncio.start_server(serve, sock=listener, backlog=1024)


async def start_aiopool(listener: socket.socket) -> asyncio.Server:
    return await streams.start_server(serve, sock=listener, backlog=1024)


SERVERS: dict[str, Callable[[socket.socket], Awaitable[asyncio.Server]]] = {
    "protocol": start_counting,
    "no reader": start_without_reader,
    "StreamReader": start_asyncio,
    "aiopool": start_aiopool,
}


async def main(name: str, listener: socket.socket) -> None:
    server = await SERVERS[name](listener)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    _, loop, name, descriptor = sys.argv
    run: Callable[[Any], Any] = asyncio.run
    if loop == "uvloop":
        from uvloop import run
    try:
        run(main(name, socket.socket(fileno=int(descriptor))))
    except KeyboardInterrupt:
        pass
