"""`aiopool.streams` over real sockets, on asyncio and uvloop, compared with asyncio's streams where both must agree.

Here are connections, servers, the writer, the end of a connection, backpressure, and that an idle connection holds no
buffer. (benchmarks/connections.py measures its memory.) test_reader.py and test_reads.py have no sockets.
"""

import asyncio
import socket
import struct
import sys
from contextlib import asynccontextmanager

import anyio
import pytest
from loops import PATIENCE
from streaming import KIB, MIB, ON_EACH_LOOP, begun, connected, until

pytestmark = ON_EACH_LOOP


def pattern(length, seed=0):
    """`length` bytes, different for each seed. Not quite periodic, so that a shift is noticed."""
    return b"".join(struct.pack("II", seed, number) for number in range(length // 8 + 1))[:length]


@asynccontextmanager
async def served(streams, callback, **kwds):
    """Run a server; yields its address."""
    server = await streams.start_server(callback, "127.0.0.1", 0, **kwds)
    async with server:
        yield server.sockets[0].getsockname()


# --- each method ---


async def test_each_way_to_read(either):
    async with connected(either) as (reader, _, peer):
        await peer.send(b"exactly;up to;until|a line\ninto!one\ntwo\nlast")
        peer.end()
        assert await reader.readexactly(8) == b"exactly;"
        assert await reader.read(6) == b"up to;"
        assert await reader.readuntil(b"|") == b"until|"
        assert await reader.readline() == b"a line\n"
        assert not reader.at_eof()
        assert await reader.readexactly(5) == b"into!"
        assert [line async for line in reader] == [b"one\n", b"two\n", b"last"]
        assert reader.at_eof()
        assert await reader.read(10) == b""
        assert await reader.readline() == b""
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(3)
        assert (caught.value.partial, caught.value.expected) == (b"", 3)


async def test_memoryviews_or_bytes(streams):
    async with connected(streams) as (reader, _, peer):
        await peer.send(b"exactly;up to;until|a line\ninto!rest")
        peer.end()
        assert isinstance(await reader.readexactly(8), memoryview)
        assert isinstance(await reader.read(6), memoryview)
        assert isinstance(await reader.readuntil((b"|", b"||")), bytes)
        assert isinstance(await reader.readline(), bytes)
        target = bytearray(5)
        assert await reader.readinto(target) == 5
        assert target == b"into!"
        rest = await reader.read()
        assert isinstance(rest, memoryview)
        assert rest == b"rest"
        assert await reader.readinto(target) == 0


@pytest.mark.parametrize("size", [1, 100, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 3 * MIB + 7])
async def test_frames_of_any_size_arrive_as_they_were_sent(streams, buffers, size):
    frames = [pattern(size, seed) for seed in range(5)]
    async with connected(streams, buffers=buffers) as (reader, _, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(peer.send, b"".join(struct.pack("I", size) + frame for frame in frames))
        kept = []
        for _ in frames:
            assert struct.unpack("I", await reader.readexactly(4)) == (size,)
            kept.append(await reader.readexactly(size))
        # No frame was changed by a later one.
        assert kept == frames


async def test_connections_that_share_a_pool_do_not_see_each_others_bytes(aiopool, streams, buffers):
    async def exchange(seed):
        async with connected(streams, buffers=buffers) as (reader, _, peer), anyio.create_task_group() as tasks:
            frames = [pattern(length, seed) for length in (10, 5000, 100_000, 300_000, 20_000, 1)] * 3
            tasks.start_soon(peer.send, b"".join(frames))
            kept = []
            for frame in frames:
                kept = [*kept[-4:], (await reader.readexactly(len(frame)), frame)]
                assert all(view == expected for view, expected in kept)

    async with anyio.create_task_group() as tasks:
        for seed in range(5):
            tasks.start_soon(exchange, seed)
    assert buffers.stats().bytes_in_use == 0
    if aiopool.implementation == "native" or sys.version_info >= (3, 12):
        assert buffers.stats().hit_rate > 0


async def test_a_large_message_is_received_into_its_own_view(streams, buffers, monkeypatch):
    offered = []
    get_buffer = streams.StreamReader.get_buffer

    def recording(self, sizehint):
        offered.append(len(buffer := get_buffer(self, sizehint)))
        return buffer

    monkeypatch.setattr(streams.StreamReader, "get_buffer", recording)
    async with connected(streams, buffers=buffers) as (reader, _, peer), anyio.create_task_group() as tasks:
        reading = await begun(reader.readexactly(4 * MIB))
        tasks.start_soon(peer.send, bytes(4 * MIB))
        await reading
        # Each time the buffer offered was the rest of the message; so nothing was moved.
        assert min(offered[: offered.index(max(offered)) + 1]) >= 4 * MIB
        assert sum(each.served for each in buffers.stats().classes if each.size > 16 * KIB) == 1


# --- servers ---


async def echo(reader, writer):
    async for line in reader:
        writer.write(line)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def ask(reader, writer):
    writer.write(b"one\ntwo\n")
    writer.write_eof()
    assert await reader.read() == b"one\ntwo\n"
    writer.close()
    await writer.wait_closed()


async def test_a_tcp_server(streams, buffers):
    async with served(streams, echo, buffers=buffers, limit=100) as address:
        await ask(*await streams.open_connection(*address, buffers=buffers, limit=100))
        await ask(*await asyncio.open_connection(*address))
    assert buffers.stats().served > 0
    assert buffers.stats().bytes_in_use == 0


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
async def test_a_unix_server(streams, buffers, tmp_path):
    path = str(tmp_path / "socket")
    async with await streams.start_unix_server(echo, path, buffers=buffers):
        await ask(*await streams.open_unix_connection(path, buffers=buffers))
        await ask(*await asyncio.open_unix_connection(path))
    assert buffers.stats().bytes_in_use == 0


async def test_without_a_pool_all_streams_share_one(aiopool, streams):
    (shared,) = [pool for pool in aiopool.pools() if repr(pool) == "<aiopool.BufferPool 'streams'>"]
    before = shared.stats().served
    async with served(streams, echo) as address:
        await ask(*await streams.open_connection(*address))
    assert shared.stats().served - before >= 2


async def test_a_plain_callback(either):
    tasks = []

    def callback(reader, writer):
        tasks.append(asyncio.create_task(echo(reader, writer)))

    async with served(either, callback) as address:
        await ask(*await asyncio.open_connection(*address))
        await asyncio.gather(*tasks)


async def test_a_callback_that_raises_is_reported_and_the_server_lives_on(either, reports):
    async def callback(reader, writer):
        if await reader.readline() == b"wrong\n":
            raise ZeroDivisionError
        await echo(reader, writer)

    async with served(either, callback) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"wrong\n")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert [report["message"] for report in reports] == ["Unhandled exception in client_connected_cb"]
        assert isinstance(reports.pop()["exception"], ZeroDivisionError)
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"right\n")
        await ask(reader, writer)


async def test_a_plain_callback_that_raises_is_reported_and_the_server_lives_on(request, either, reports):
    if "aiofastnet" in request.node.name:
        pytest.skip("aiofastnet 1.2 serves no connection after one that was closed at its start, with any streams")
    wrong = [True]
    tasks = []

    def callback(reader, writer):
        if wrong.pop():
            writer.close()
            raise ZeroDivisionError
        tasks.append(asyncio.create_task(echo(reader, writer)))

    async with served(either, callback) as address:
        reader, writer = await asyncio.open_connection(*address)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert isinstance(reports.pop()["exception"], ZeroDivisionError)
        wrong.append(False)
        await ask(*await asyncio.open_connection(*address))
        await asyncio.gather(*tasks)


async def test_a_cancelled_callback_closes_its_connection(streams):
    tasks = []

    async def callback(reader, writer):
        tasks.append(asyncio.current_task())
        await reader.read(1)

    async with served(streams, callback) as address:
        reader, writer = await asyncio.open_connection(*address)
        await until(lambda: tasks)
        tasks[0].cancel()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_bad_arguments_are_rejected_at_once(streams):
    for wrong, error in [({"limit": 0}, ValueError), ({"limit": "x"}, TypeError), ({"buffers": 5}, TypeError)]:
        with pytest.raises(error, match=r"^(limit|buffers) must"):
            await streams.start_server(echo, "127.0.0.1", 0, **wrong)
        with pytest.raises(error, match=r"^(limit|buffers) must"):
            await streams.open_connection("127.0.0.1", 1, **wrong)
    with pytest.raises(TypeError, match="client_connected_cb must be callable or None, not 5"):
        await streams.start_server(5, "127.0.0.1", 0)


# --- the writer ---


async def test_drain_waits_for_a_slow_peer(either):
    async with connected(either) as (_, writer, peer):
        data = pattern(8 * MIB)
        writer.write(data)
        drains = [await begun(writer.drain()) for _ in range(3)]
        assert not any(drain.done() for drain in drains)
        drains.pop().cancel()
        received = asyncio.create_task(peer.receive(len(data)))
        await asyncio.gather(*drains)
        await writer.drain()
        assert await received == data


async def test_drain_raises_when_the_peer_is_gone(either):
    async with connected(either) as (_, writer, peer):
        writer.write(bytes(8 * MIB))
        drain = await begun(writer.drain())
        peer.reset()
        with anyio.fail_after(PATIENCE), pytest.raises(ConnectionError):
            await drain
        with pytest.raises(ConnectionError):
            await writer.drain()


async def test_drain_after_close(either):
    async with connected(either) as (_, writer, _):
        writer.close()
        await writer.wait_closed()
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            await writer.drain()
        assert writer.is_closing()


async def test_wait_closed(either):
    async with connected(either) as (reader, writer, _):
        waiting = [await begun(writer.wait_closed()) for _ in range(2)]
        assert not any(each.done() for each in waiting)
        writer.close()
        await asyncio.gather(*waiting)
        await writer.wait_closed()
        assert reader.at_eof()


async def test_wait_closed_raises_what_broke_the_connection(either):
    async with connected(either) as (_, writer, peer):
        waiting = await begun(writer.wait_closed())
        peer.reset()
        with pytest.raises(ConnectionResetError):
            await waiting
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()


async def test_a_broken_connection_without_a_waiter_is_not_reported(either):
    """Nothing is reported, now or when it is collected: the fixture checks that."""
    async with connected(either) as (reader, _, peer):
        peer.reset()
        await until(reader.exception)


# --- the end of a connection ---

READS = {
    "read": lambda reader: reader.read(10),
    "read all": lambda reader: reader.read(),
    "readexactly": lambda reader: reader.readexactly(10),
    "readuntil": lambda reader: reader.readuntil(b"|"),
    "readline": lambda reader: reader.readline(),
    "next": lambda reader: anext(reader),
}


@pytest.mark.parametrize("read", READS)
async def test_a_reset_reaches_the_waiting_reader_and_later_reads(either, read):
    async with connected(either) as (reader, _, peer):
        reading = await begun(READS[read](reader))
        assert reader.exception() is None
        peer.reset()
        with pytest.raises(ConnectionResetError):
            await reading
        assert isinstance(reader.exception(), ConnectionResetError)
        for again in READS.values():
            with pytest.raises(ConnectionResetError):
                await again(reader)


@pytest.mark.parametrize("read", READS)
async def test_at_the_end_of_a_stream_a_read_returns_the_rest(either, read):
    async with connected(either) as (reader, writer, peer):
        reading = await begun(READS[read](reader))
        await peer.send(b"left")
        peer.end()
        if read in ("readexactly", "readuntil"):
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await reading
            assert caught.value.partial == b"left"
        else:
            assert await reading == b"left"
        assert await reader.read() == b""
        assert reader.at_eof()
        # This half is still open.
        writer.write(b"thanks")
        assert await peer.receive(6) == b"thanks"


async def test_received_bytes_can_be_read_after_close(either):
    async with connected(either) as (reader, writer, peer):
        await peer.send(b"received")
        assert await reader.readexactly(2) == b"re"
        writer.close()
        await writer.wait_closed()
        assert await reader.read() == b"ceived"


async def test_bytes_received_before_a_pause_can_be_read_after_close(either):
    """Reading on would resume a transport that is closed."""
    async with connected(either, limit=100) as (reader, writer, peer):
        await peer.send(pattern(1000))
        await until(lambda: not writer.transport.is_reading())
        writer.close()
        await writer.wait_closed()
        assert await reader.read() == pattern(1000)


@pytest.mark.parametrize("read", ["read all", "readexactly", "readuntil", "readline"])
async def test_a_read_can_be_cancelled_at_every_byte(streams, read):
    async with connected(streams) as (reader, _, peer):
        for byte in b"012345678":
            reading = await begun(READS[read](reader))
            await peer.send(bytes([byte]))
            await until(lambda byte=byte: reader.buffered == byte - ord("0") + 1)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        await peer.send(b"9|\n")
        peer.end()
        assert await reader.read() == b"0123456789|\n"


async def test_two_readers_at_once_are_an_error(either):
    async with connected(either) as (reader, _, peer):
        reading = await begun(reader.readline())
        for name, read in READS.items():
            name = {"read all": "read", "next": "readuntil", "readline": "readuntil"}.get(name, name)
            with pytest.raises(RuntimeError, match=rf"^{name}\(\) called while another coroutine is already waiting"):
                await read(reader)
        await peer.send(b"a line\n")
        assert await reading == b"a line\n"


# --- backpressure ---


async def test_a_sender_that_runs_ahead_is_held_back(either):
    async with connected(either, limit=KIB) as (reader, writer, peer):
        sending = asyncio.create_task(peer.send(bytes(32 * MIB)))
        await until(lambda: not writer.transport.is_reading())
        await asyncio.sleep(0.02)
        assert not sending.done()
        left = 32 * MIB
        while left:
            left -= len(await reader.read(100_000))
        await sending


async def test_a_sender_that_runs_ahead_uses_little_memory(streams, buffers):
    async with connected(streams, buffers=buffers) as (reader, writer, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(peer.send, bytes(32 * MIB))
        await until(lambda: not writer.transport.is_reading())
        left = 32 * MIB
        while left:
            assert buffers.stats().bytes_in_use <= 1024 * KIB
            left -= len(await reader.readexactly(100 * KIB if left > 100 * KIB else left))
        assert buffers.stats().bytes_in_use == 0


async def test_a_message_far_longer_than_the_limit_causes_no_deadlock(streams):
    async with connected(streams, limit=100) as (reader, writer, peer), anyio.create_task_group() as tasks:
        message = pattern(4 * MIB)
        tasks.start_soon(peer.send, b"1234" + message + message)
        await until(lambda: not writer.transport.is_reading())
        assert await reader.readexactly(4) == b"1234"
        assert await reader.readexactly(len(message)) == message
        assert await reader.readexactly(len(message)) == message


async def test_a_peer_that_claims_an_enormous_length_does_not_affect_other_connections(aiopool, streams, reports):
    buffers = aiopool.BufferPool(max_size=MIB)

    async def callback(reader, writer):
        (length,) = struct.unpack("Q", await reader.readexactly(8))
        writer.write(await reader.readexactly(length))
        writer.close()
        await writer.wait_closed()

    async with served(streams, callback, buffers=buffers) as address:
        for length in (1 << 40, 5):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(struct.pack("Q", length) + b"hello")
            assert await reader.read() == (b"hello" if length == 5 else b"")
            writer.close()
            await writer.wait_closed()
    assert isinstance(reports.pop()["exception"], asyncio.LimitOverrunError)
    assert buffers.stats().oversize.served == 0


# --- views that live on ---


async def test_a_view_can_be_sent_to_a_slow_peer_while_reading_goes_on(streams, buffers):
    """A proxy does this. The transport keeps the views that it could not send yet."""
    frames = [pattern(256 * KIB, seed) for seed in range(40)]
    async with (
        connected(streams, buffers=buffers) as (reader, _, source),
        connected(streams, buffers=buffers) as (_, writer, sink),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(source.send, b"".join(frames))
        for _ in frames:
            writer.write(await reader.readexactly(256 * KIB))  # without drain: the worst case
        assert writer.transport.get_write_buffer_size() > MIB
        received = await sink.receive(len(frames) * 256 * KIB)
        assert received == b"".join(frames)
    await until(lambda: buffers.stats().bytes_in_use == 0)


# --- the memory of an idle connection ---


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("size", [10, 16 * KIB, 64 * KIB, MIB])
async def test_an_idle_connection_holds_no_buffer(streams, copies, buffers, read, size):
    """16 KiB fill a chunk exactly: libuv asks for another before it knows that nothing more has arrived."""
    async with connected(streams, buffers=buffers) as (reader, _, peer), anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(peer.send, bytes(size))
            view = await reader.readexactly(size)
            reading = await begun(READS[read](reader))
            if size * 16 >= 16 * KIB and not copies:
                assert buffers.stats().bytes_in_use > 0
            del view
            await until(lambda: buffers.stats().bytes_in_use == 0)
            assert not reading.done()
            reading.cancel()
            await asyncio.wait([reading])
