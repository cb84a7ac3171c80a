"""Programs that are correct on asyncio's streams, run on those and on aiopool's, with the same results."""

import asyncio
import contextlib
import gc
import socket
import sys
import threading
import traceback

import anyio
import pytest
from loops import PATIENCE
from streaming import KIB, MIB, ON_EACH_LOOP, begun, connected, until

pytestmark = ON_EACH_LOOP


async def ask(carrier, body, **kwds):
    """Send `body` and read everything; returns the server's answer, or the type of the error."""
    reader, writer = await carrier.connect(asyncio, **kwds)
    try:
        with anyio.fail_after(PATIENCE):
            writer.write(body)
            try:
                return await reader.read()
            except OSError as error:
                return type(error)
    finally:
        writer.transport.abort()


async def all_arrived(readers, size):
    """Wait until the server's handler waits for more than these bytes: nothing that could reset the answer is left in
    the kernel.
    """
    await until(lambda: readers and len(readers[0]._buffer) == size)


async def closed(writer):
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass


# --- closing delivers what was written ---


async def test_a_handler_that_gives_up_in_the_middle_of_a_body(either, carrier):
    readers = []
    timeout = asyncio.timeout(None)

    async def handler(reader, writer):
        readers.append(reader)
        try:
            async with timeout:
                await reader.readexactly(MIB)
        except TimeoutError:
            writer.write(b"408")
        await closed(writer)

    async with carrier.serve(either, handler):
        asking = asyncio.create_task(ask(carrier, bytes(600 * KIB)))
        await all_arrived(readers, 600 * KIB)
        timeout.reschedule(0)
        assert await asking == b"408"


@pytest.mark.parametrize("size", [40_000, 120_000])
async def test_a_handler_that_reads_no_body(either, carrier, size):
    async def handler(reader, writer):
        await reader.readline()
        writer.write(b"413")
        await writer.drain()
        await closed(writer)

    async with carrier.serve(either, handler):
        assert await ask(carrier, b"POST\n" + bytes(size)) == b"413"


@pytest.mark.parametrize("carrier", ["tls"], indirect=True)
@pytest.mark.parametrize("size", [250_000, 500_000])
async def test_over_tls_a_handler_that_reads_no_body_and_answers_late(either, carrier, size):
    """The transport is paused first, with much unread. (With 2 MB, asyncio's own loop resets the answer of both.)"""
    writers = []

    async def handler(reader, writer):
        writers.append(writer)
        await reader.readline()
        await until(lambda: not writer.transport.is_reading())
        writer.write(b"413")
        writer.close()

    async with carrier.serve(either, handler):
        assert await ask(carrier, b"POST\n" + bytes(size)) == b"413"
        writers[0].transport.abort()  # that of aiofastnet, which is paused, would wait for the client until a timeout


@pytest.mark.parametrize("size", [40_000, 250_000, 500_000])
async def test_unread_bytes_in_the_kernel_do_not_reset_the_answer(streams, buffers, size):
    """With the larger sizes asyncio's streams fail: bytes that they do not receive ahead stay in the kernel."""

    async def handler(reader, writer):
        await reader.readline()
        await until(lambda: not writer.transport.is_reading())
        writer.write(b"413")
        await closed(writer)

    async with await streams.start_server(handler, "127.0.0.1", 0, limit=KIB, buffers=buffers) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"POST\n" + bytes(size))
        assert await reader.read() == b"413"
        writer.transport.abort()


async def test_a_cancelled_handler(either, carrier):
    readers, tasks = [], []
    if either is asyncio:
        # Before Python 3.13 asyncio reports the cancellation.
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)

    async def handler(reader, writer):
        readers.append(reader)
        tasks.append(asyncio.current_task())
        try:
            await reader.readexactly(MIB)
        finally:
            writer.write(b"503")
            await closed(writer)

    async with carrier.serve(either, handler):
        asking = asyncio.create_task(ask(carrier, bytes(300 * KIB)))
        await all_arrived(readers, 300 * KIB)
        tasks[0].cancel()
        assert await asking == b"503"


async def test_close_by_another_task(either, carrier):
    readers, writers = [], []

    async def handler(reader, writer):
        readers.append(reader)
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # the client may already be gone
            await reader.readexactly(MIB)

    async with carrier.serve(either, handler):
        asking = asyncio.create_task(ask(carrier, bytes(300 * KIB)))
        await all_arrived(readers, 300 * KIB)
        writers[0].write(b"bye")
        writers[0].close()
        assert await asking == b"bye"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Server.close_clients came with Python 3.13")
async def test_close_clients(either, carrier):
    readers = []

    async def handler(reader, writer):
        readers.append(reader)
        writer.write(b"hello")
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # the client may already be gone
            await reader.readexactly(MIB)

    async with carrier.serve(either, handler) as server:
        if not hasattr(server, "close_clients"):
            pytest.skip("this loop has no Server.close_clients")
        asking = asyncio.create_task(ask(carrier, bytes(300 * KIB)))
        await all_arrived(readers, 300 * KIB)
        server.close_clients()
        assert await asking == b"hello"


async def test_an_answer_of_a_megabyte(either, carrier):
    async def handler(reader, writer):
        await reader.readline()
        writer.write(bytes(1_000_000))
        await closed(writer)

    async with carrier.serve(either, handler):
        assert await ask(carrier, b"GET\n" + bytes(100_000), limit=4 * MIB) == bytes(1_000_000)


# --- limit ---


async def test_two_peers_that_write_drain_and_then_read(either, carrier):
    size = 12 * MIB

    async def peer(reader, writer):
        writer.write(bytes(size))
        await writer.drain()
        left = size
        while left:
            left -= len(await reader.read(left))
        await closed(writer)

    done = asyncio.Event()

    async def handler(reader, writer):
        await peer(reader, writer)
        done.set()

    async with carrier.serve(either, handler, limit=8 * MIB):
        with anyio.fail_after(PATIENCE):
            await peer(*await carrier.connect(either, limit=8 * MIB))
            await done.wait()


async def test_receiving_goes_on_until_twice_the_limit_is_unread(either):
    async with connected(either, limit=MIB) as (reader, writer, peer):
        await peer.send(bytes(2 * MIB))
        await until(lambda: len(reader._buffer) == 2 * MIB)
        assert writer.transport.is_reading()
        sending = asyncio.create_task(peer.send(bytes(16 * MIB)))
        await until(lambda: not writer.transport.is_reading())
        sending.cancel()


async def test_no_option_of_the_socket_is_changed(streams):
    """A low-water mark would have senders with small buffers wait for acknowledgments."""
    async with connected(streams) as (reader, writer, peer):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 2)
        reading = await begun(reader.readexactly(MIB))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 2
        await peer.send(bytes(MIB))
        assert len(await reading) == MIB
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 2


# --- waiting and errors ---


async def test_cancelling_one_wait_closed_cancels_no_other(streams):
    async with connected(streams) as (_, writer, _):
        waiting = [await begun(writer.wait_closed()) for _ in range(3)]
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        await asyncio.sleep(0)
        assert [each.done() for each in waiting] == [True, False, False]
        writer.close()
        await asyncio.gather(*waiting[1:])


async def test_errors_do_not_grow_and_hold_no_view(streams, buffers):
    async with connected(streams, buffers=buffers) as (reader, writer, peer):
        await peer.send(bytes(16 * KIB))
        view = await reader.readexactly(16 * KIB)

        async def fails(view, call):
            with pytest.raises(ConnectionResetError) as caught:
                await call()
            return caught.value

        peer.reset()
        await until(reader.exception)
        depths = set()
        for _ in range(1000):
            for call in (writer.drain, reader.readline, lambda: reader.readexactly(4)):
                error = await fails(view, call)
                depths.add(len(traceback.extract_tb(error.__traceback__)))
                del error
        assert max(depths) < 10
        del view
        gc.collect()
        assert buffers.stats().bytes_in_use == 0


class NoCoroutine:
    """An awaitable that asyncio's streams ignore."""

    def __await__(self):
        yield


@pytest.mark.parametrize("mistake", ["raises", "returns an awaitable that is not a coroutine"])
async def test_a_plain_callback_with_a_mistake_is_reported_and_its_client_closed(streams, reports, mistake):
    def callback(reader, writer):
        if mistake == "raises":
            raise ZeroDivisionError
        return NoCoroutine()

    async with await streams.start_server(callback, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        with anyio.fail_after(PATIENCE):
            assert await reader.read() == b""
        await closed(writer)
        (report,) = reports
        assert report["message"] == "Unhandled exception in client_connected_cb"
        assert isinstance(report["exception"], ZeroDivisionError if mistake == "raises" else TypeError)
        reports.clear()


async def test_a_plain_callback_may_return_a_task(either):
    async def handler(reader, writer):
        writer.write(await reader.readline())
        await closed(writer)

    tasks = []

    def callback(reader, writer):
        task = asyncio.create_task(handler(reader, writer))
        tasks.append(task)  # asyncio's streams refer to it only weakly, so a garbage collection could end it
        return task

    async with await either.start_server(callback, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"line\n")
        assert await reader.read() == b"line\n"
        await closed(writer)


# --- fairness ---


async def test_a_connection_whose_data_never_run_out_lets_others_run(either):
    """In one turn of the loop it gets a limited share. (Without the limit 60 MiB were seen.)"""
    sender, receiver = socket.socketpair()

    def send_for_ever():
        with contextlib.suppress(OSError):  # the receiver has closed
            while True:
                sender.sendall(bytes(MIB))

    turns = most = in_this_turn = 0

    def count_turns():
        nonlocal turns, in_this_turn, next_turn
        turns, in_this_turn = turns + 1, 0
        next_turn = asyncio.get_running_loop().call_soon(count_turns)

    next_turn = asyncio.get_running_loop().call_soon(count_turns)
    thread = threading.Thread(target=send_for_ever)
    thread.start()
    reader, writer = await either.open_connection(sock=receiver)
    for _ in range(100 * MIB // 20_000):
        received = await reader.readexactly(20_000)
        in_this_turn += len(received)
        most = max(most, in_this_turn)
    next_turn.cancel()
    writer.transport.abort()
    await asyncio.to_thread(thread.join, PATIENCE)
    sender.close()
    assert turns > 0
    assert most <= 2 * MIB
