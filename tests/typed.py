"""Checks of the interface's types. Only type checkers read this file; it is never run."""

import asyncio
import ssl
from typing import assert_type

import aiopool
from aiopool import streams

made = aiopool.Pool(lambda: bytearray(10), reset=lambda buffer: buffer.clear())
assert_type(made, aiopool.Pool[bytearray])
assert_type(made.get(), bytearray)
made.put(bytearray())
with made.borrow() as buffer:
    assert_type(buffer, bytearray)

given = aiopool.Pool[str | None]()
assert_type(given.get(), str | None)
given.put("something")
given.put(None)


async def borrows() -> None:
    """The same on a loop."""
    async with made.borrow() as buffer:
        assert_type(buffer, bytearray)


async def connect() -> bytearray:
    """An async factory."""
    return bytearray()


async def disconnect(connection: bytearray) -> None:
    """An async close."""


async def awaits() -> None:
    """An async pool returns the result of its factory, or what awaiting that result returns."""
    links = aiopool.AsyncPool(connect, reset=lambda link: link.clear(), close=disconnect, loop_bound=True)
    assert_type(links, aiopool.AsyncPool[bytearray])
    assert_type(await links.get(), bytearray)
    assert_type(await links.put(bytearray()), None)
    assert_type(await links.clear(), int)
    async with links.borrow() as link:
        assert_type(link, bytearray)
    plain = aiopool.AsyncPool(bytearray)
    assert_type(await plain.get(), bytearray)
    await links.put("no connection")  # type: ignore[arg-type]
    aiopool.AsyncPool(None)  # type: ignore[call-overload]
    with links.borrow():  # type: ignore[attr-defined]
        pass


assert_type(aiopool.Pool(bytearray, loop_bound=True), aiopool.Pool[bytearray])
assert_type(made.stats().hit_rate, float)
assert_type(aiopool.current_processor(), aiopool.Processor | None)
assert_type(aiopool.implementation, str)

made.put("no buffer")  # type: ignore[arg-type]
made.put(obj=bytearray())  # type: ignore[call-arg]
made.fill(n=5)  # type: ignore[call-arg]
aiopool.BufferPool().acquire(n=5)  # type: ignore[call-arg]
assert_type(aiopool.BufferPool().acquire(5), memoryview)
aiopool.Pool(3)  # type: ignore[call-overload]


async def streaming(buffers: aiopool.BufferPool) -> None:
    """A server with either kind of callback, and a client."""

    async def serve(reader: streams.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert_type(await reader.readexactly(4), memoryview)
        assert_type(await reader.read(), memoryview)
        assert_type(await reader.readinto(bytearray(10)), int)
        assert_type(await reader.readuntil((b"a", b"b")), bytes)
        assert_type(reader.buffered, int)
        async for line in reader:
            assert_type(line, bytes)
        await writer.drain()

    def call_back(reader: streams.StreamReader, writer: streams.StreamWriter) -> None:
        writer.close()

    assert_type(await streams.start_server(serve, "localhost", 0, buffers=buffers), asyncio.Server)
    await streams.start_unix_server(call_back, "path", limit=1000)
    reader, writer = await streams.open_connection("localhost", 80, buffers=buffers, ssl=True)
    assert_type(reader, streams.StreamReader)
    assert_type(writer, streams.StreamWriter)
    await writer.start_tls(ssl.create_default_context(), server_hostname="localhost", ssl_shutdown_timeout=5)
    await streams.open_connection("localhost", 80, buffers=5)  # type: ignore[call-overload]
    await streams.start_server(streaming, "localhost", 80)  # type: ignore[arg-type]


async def streaming_bytes() -> None:
    """The same with `bytes`."""

    async def serve(reader: streams.StreamReader[bytes], writer: streams.StreamWriter) -> None:
        assert_type(await reader.readexactly(4), bytes)
        assert_type(await reader.read(), bytes)
        try:
            await reader.readline()
        except (streams.IncompleteReadError, streams.LimitOverrunError):
            writer.close()

    assert_type(await streams.start_server(serve, "localhost", 0, results=bytes), asyncio.Server)
    await streams.start_unix_server(serve, "path", results=bytes)
    reader, _ = await streams.open_connection("localhost", 80, results=bytes)
    assert_type(reader, streams.StreamReader[bytes])
    assert_type(await reader.read(5), bytes)
    unix_reader, _ = await streams.open_unix_connection("path", results=bytes)
    assert_type(await unix_reader.readexactly(5), bytes)
    await streams.start_server(serve, "localhost", 0)  # type: ignore[arg-type]
    await streams.open_connection("localhost", 80, results=str)  # type: ignore[arg-type]
