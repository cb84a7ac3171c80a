"""The functions, which are the same as asyncio's except for `buffers=` and `results=`."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, overload

from .._buffer_pool import BufferPool
from .._checks import callable_or_none
from ._protocol import StreamProtocol
from ._reader import LIMIT, StreamReader
from ._writer import StreamWriter

ViewsCallback = Callable[[StreamReader[memoryview], StreamWriter], Awaitable[None] | None]
BytesCallback = Callable[[StreamReader[bytes], StreamWriter], Awaitable[None] | None]


@overload
async def open_connection(
    host: str | None = None,
    port: int | str | None = None,
    *,
    limit: int = LIMIT,
    buffers: BufferPool | None = None,
    results: type[memoryview] = memoryview,
    **kwds: Any,
) -> tuple[StreamReader[memoryview], StreamWriter]: ...
@overload
async def open_connection(
    host: str | None = None,
    port: int | str | None = None,
    *,
    limit: int = LIMIT,
    buffers: BufferPool | None = None,
    results: type[bytes],
    **kwds: Any,
) -> tuple[StreamReader[bytes], StreamWriter]: ...
async def open_connection(
    host: str | None = None,
    port: int | str | None = None,
    *,
    limit: int = LIMIT,
    buffers: BufferPool | None = None,
    results: Any = memoryview,
    **kwds: Any,
) -> tuple[StreamReader[Any], StreamWriter]:
    r"""Connect to a server, and return a reader and a writer. Takes all arguments of `asyncio.open_connection`.

    `buffers` is the pool to receive into; by default a pool that all streams share. `results` is the type that the
    reader's `read` and `readexactly` return: `memoryview` or `bytes`.

    >>> async def client(address):
    ...     reader, writer = await streams.open_connection(*address)
    ...     line = await reader.readline()
    ...     writer.close()
    ...     return line
    >>> async def greet(reader, writer):
    ...     writer.write(b"hello\n")
    ...     writer.close()
    >>> async def main():
    ...     async with await streams.start_server(greet, "127.0.0.1", 0) as server:
    ...         return await client(server.sockets[0].getsockname())
    >>> asyncio.run(main())
    b'hello\n'

    :raises OSError: there is no such server, or it does not answer.
    """
    loop: Any = asyncio.get_running_loop()
    protocol = _protocols(limit, buffers, results)()
    transport, _ = await loop.create_connection(lambda: protocol, host, port, **kwds)
    return _streams(protocol, transport)


@overload
async def start_server(
    client_connected_cb: ViewsCallback,
    host: str | Sequence[str] | None = None,
    port: int | str | None = None,
    *,
    limit: int = LIMIT,
    buffers: BufferPool | None = None,
    results: type[memoryview] = memoryview,
    **kwds: Any,
) -> asyncio.Server: ...
@overload
async def start_server(
    client_connected_cb: BytesCallback,
    host: str | Sequence[str] | None = None,
    port: int | str | None = None,
    *,
    limit: int = LIMIT,
    buffers: BufferPool | None = None,
    results: type[bytes],
    **kwds: Any,
) -> asyncio.Server: ...
async def start_server(
    client_connected_cb: Callable[[StreamReader[Any], StreamWriter], Awaitable[None] | None],
    host: str | Sequence[str] | None = None,
    port: int | str | None = None,
    *,
    limit: int = LIMIT,
    buffers: BufferPool | None = None,
    results: Any = memoryview,
    **kwds: Any,
) -> asyncio.Server:
    """Start a server that passes each client's reader and writer to a callback. Takes all of asyncio's arguments.

    `buffers` is the pool to receive into; by default a pool that all streams share. `results` is the type that the
    readers' `read` and `readexactly` return: `memoryview` or `bytes`. See `open_connection` for an example. An
    exception of the callback goes to the loop's exception handler, and its connection is closed.

    :raises OSError: it cannot listen on that address.
    :raises TypeError: the callback is not callable, `buffers` is not a `BufferPool`, `limit` not an integer, or
        `results` neither of the two types.
    :raises ValueError: `limit` is not more than 0.
    """
    loop: Any = asyncio.get_running_loop()
    server: asyncio.Server = await loop.create_server(
        _protocols(limit, buffers, results, client_connected_cb), host, port, **kwds
    )
    return server


if hasattr(socket, "AF_UNIX"):

    @overload
    async def open_unix_connection(
        path: Any = None,
        *,
        limit: int = LIMIT,
        buffers: BufferPool | None = None,
        results: type[memoryview] = memoryview,
        **kwds: Any,
    ) -> tuple[StreamReader[memoryview], StreamWriter]: ...
    @overload
    async def open_unix_connection(
        path: Any = None, *, limit: int = LIMIT, buffers: BufferPool | None = None, results: type[bytes], **kwds: Any
    ) -> tuple[StreamReader[bytes], StreamWriter]: ...
    async def open_unix_connection(
        path: Any = None,
        *,
        limit: int = LIMIT,
        buffers: BufferPool | None = None,
        results: Any = memoryview,
        **kwds: Any,
    ) -> tuple[StreamReader[Any], StreamWriter]:
        """Like `open_connection`, over a Unix socket. Takes all arguments of `asyncio.open_unix_connection`."""
        loop = asyncio.get_running_loop()
        protocol = _protocols(limit, buffers, results)()
        transport, _ = await loop.create_unix_connection(lambda: protocol, path, **kwds)
        return _streams(protocol, transport)

    @overload
    async def start_unix_server(
        client_connected_cb: ViewsCallback,
        path: Any = None,
        *,
        limit: int = LIMIT,
        buffers: BufferPool | None = None,
        results: type[memoryview] = memoryview,
        **kwds: Any,
    ) -> asyncio.Server: ...
    @overload
    async def start_unix_server(
        client_connected_cb: BytesCallback,
        path: Any = None,
        *,
        limit: int = LIMIT,
        buffers: BufferPool | None = None,
        results: type[bytes],
        **kwds: Any,
    ) -> asyncio.Server: ...
    async def start_unix_server(
        client_connected_cb: Callable[[StreamReader[Any], StreamWriter], Awaitable[None] | None],
        path: Any = None,
        *,
        limit: int = LIMIT,
        buffers: BufferPool | None = None,
        results: Any = memoryview,
        **kwds: Any,
    ) -> asyncio.Server:
        """Like `start_server`, over a Unix socket. Takes all arguments of `asyncio.start_unix_server`."""
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(_protocols(limit, buffers, results, client_connected_cb), path, **kwds)


def _protocols(
    limit: int, buffers: BufferPool | None, results: Any, client_connected_cb: Any = None
) -> Callable[[], StreamProtocol]:
    """The factory of protocols, each with its reader."""
    callable_or_none("client_connected_cb", client_connected_cb)

    def make() -> StreamProtocol:
        return StreamProtocol(StreamReader(buffers, limit=limit, results=results), client_connected_cb)

    make()  # raises for invalid arguments now, and not only when the first client connects
    return make


def _streams(protocol: StreamProtocol, transport: asyncio.BaseTransport) -> tuple[StreamReader[Any], StreamWriter]:
    reader = protocol.reader
    return reader, StreamWriter(transport, protocol, None, reader._loop)  # type: ignore[arg-type]
