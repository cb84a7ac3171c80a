"""`aiopool.streams` over TLS, on asyncio and uvloop, with a certificate created here."""

import asyncio
import ssl

import pytest
from loops import PATIENCE
from streaming import KIB, MIB, ON_EACH_LOOP, until

pytestmark = ON_EACH_LOOP


async def close(writer):
    writer.close()
    await writer.wait_closed()


async def echo(reader, writer):
    """Send length-prefixed frames back."""
    while not reader.at_eof():
        try:
            length = int.from_bytes(await reader.readexactly(4), "big")
        except asyncio.IncompleteReadError:
            break
        writer.write(length.to_bytes(4, "big"))
        writer.write(await reader.readexactly(length))
        await writer.drain()
    await close(writer)


async def exchange(reader, writer, lengths):
    for number, length in enumerate(lengths):
        frame = bytes([number]) * length
        writer.write(length.to_bytes(4, "big") + frame)
        assert await reader.readexactly(4) == length.to_bytes(4, "big")
        assert await reader.readexactly(length) == frame


LENGTHS = [1, 100, 16 * KIB - 4, 16 * KIB, 100_000, 3 * MIB, 5]


async def test_frames_over_tls(streams, buffers, contexts, caplog):
    server_context, client_context = contexts
    server = await streams.start_server(echo, "localhost", 0, ssl=server_context, buffers=buffers)
    async with server:
        reader, writer = await streams.open_connection(
            *server.sockets[0].getsockname()[:2], ssl=client_context, server_hostname="localhost", buffers=buffers
        )
        await exchange(reader, writer, LENGTHS)
        await until(lambda: buffers.stats().bytes_in_use == 0)
        await close(writer)
    assert buffers.stats().bytes_in_use == 0
    assert "eof_received" not in caplog.text  # asyncio warns of protocols that would keep half of a TLS connection open


async def test_start_tls(streams, buffers, contexts):
    """Both sides begin without TLS."""
    server_context, client_context = contexts

    async def upgrade(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go on\n")
        await writer.start_tls(server_context)
        assert writer.get_extra_info("sslcontext") is server_context
        await echo(reader, writer)

    server = await streams.start_server(upgrade, "localhost", 0, buffers=buffers)
    async with server:
        reader, writer = await streams.open_connection(*server.sockets[0].getsockname()[:2], buffers=buffers)
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go on\n"
        await writer.start_tls(client_context, server_hostname="localhost")
        await exchange(reader, writer, LENGTHS)
        await until(lambda: buffers.stats().bytes_in_use == 0)
        await close(writer)


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_client_hello_right_after_a_line_begins_the_handshake(streams, contexts, pieces):
    """A proxy may send a header of its own first. asyncio's own streams handle this only on the newest versions."""
    server_context, client_context = contexts

    async def greet(reader, writer):
        assert await reader.readline() == b"PROXY TCP4\n"
        await until(lambda: reader.buffered > 0)
        await writer.start_tls(server_context)
        assert await reader.readline() == b"over TLS\n"
        writer.write(b"yes\n")
        await close(writer)

    async with await streams.start_server(greet, "localhost", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        early = b"PROXY TCP4\n" + outgoing.read()
        for start in range(0, len(early), -(-len(early) // pieces)):
            writer.write(early[start : start + -(-len(early) // pieces)])
            await asyncio.sleep(0.005 if pieces > 1 else 0)
        async with asyncio.timeout(PATIENCE):
            incoming.write(await reader.read(64 * KIB))
            outgoing = await finish(tls, incoming, outgoing, reader, writer)
            tls.write(b"over TLS\n")
            writer.write(outgoing.read())
            answer = b""
            while not answer:
                incoming.write(await reader.read(64 * KIB))
                try:
                    answer = tls.read(100)
                except ssl.SSLWantReadError:
                    pass
        assert answer == b"yes\n"
        writer.transport.abort()


@pytest.mark.parametrize("who", ["client", "server"])
async def test_plain_text_injected_after_starttls_is_never_read_as_if_it_came_over_tls(streams, contexts, who, reports):
    server_context, client_context = contexts
    read = []

    async def upgrade(reader, writer, context, **kwds):
        assert await reader.readline() == b"STARTTLS\n"
        await until(lambda: reader.buffered > 0)
        try:
            async with asyncio.timeout(PATIENCE):
                await writer.start_tls(context, **kwds)
                read.append(await reader.readline())
        except (ssl.SSLError, ConnectionError) as error:
            read.append(type(error))
        writer.transport.abort()

    injected = b"STARTTLS\n" + b"injected, and nothing that TLS knows\n" * 10
    if who == "server":

        async def serve(reader, writer):
            await upgrade(reader, writer, server_context)

        async with await streams.start_server(serve, "localhost", 0) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            writer.write(injected)
            await until(lambda: read)
            writer.transport.abort()
    else:

        async def inject(reader, writer):
            writer.write(injected)
            await reader.read()
            writer.transport.abort()

        async with await asyncio.start_server(inject, "localhost", 0) as server:
            streams_of_client = await streams.open_connection(*server.sockets[0].getsockname()[:2])
            await upgrade(*streams_of_client, client_context, server_hostname="localhost")
    assert len(read) == 1
    assert issubclass(read[0], OSError)
    reports.clear()  # the failed handshake, in debug mode


async def test_a_sender_that_runs_ahead_is_held_back_after_start_tls(streams, buffers, contexts):
    """The new transport is paused, and not the one below it."""
    server_context, client_context = contexts

    async def send(reader, writer):
        await writer.start_tls(server_context)
        writer.write(bytes(32 * MIB))
        await writer.drain()
        await close(writer)

    server = await streams.start_server(send, "localhost", 0)
    async with server:
        reader, writer = await streams.open_connection(*server.sockets[0].getsockname()[:2], limit=KIB, buffers=buffers)
        await writer.start_tls(client_context, server_hostname="localhost")
        await until(lambda: reader._paused)
        held = buffers.stats().bytes_in_use
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert buffers.stats().bytes_in_use == held < MIB
        left = 32 * MIB
        while left:
            left -= len(await reader.read(MIB))
            assert buffers.stats().bytes_in_use <= MIB
        assert await reader.read() == b""
        await close(writer)


async def handshake(context, reader, writer):
    """A client whose records a test can send in any pieces: the object to write to, and the BIO with the records.

    The last record of the handshake has not been sent yet.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    return tls, await finish(tls, incoming, outgoing, reader, writer)


async def finish(tls, incoming, outgoing, reader, writer):
    """Complete a handshake."""
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            incoming.write(await reader.read(64 * KIB))
        else:
            return outgoing


READS = {
    "read": lambda reader: reader.read(10),
    "readexactly": lambda reader: reader.readexactly(6),
    "readline": lambda reader: reader.readline(),
}


@pytest.mark.parametrize("read", READS)
async def test_part_of_a_record_takes_no_buffer(streams, buffers, contexts, read):
    """The transport asks for a buffer before it knows that it can decrypt nothing yet."""
    server_context, client_context = contexts
    got = []

    async def reads(reader, writer):
        got.append(bytes(await READS[read](reader)))
        writer.transport.abort()

    server = await streams.start_server(reads, "localhost", 0, ssl=server_context, buffers=buffers)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        try:
            tls, outgoing = await handshake(client_context, reader, writer)
            tls.write(b"hello\n")
            sent = outgoing.read()
            for start in range(len(sent) - 1):
                writer.write(sent[start : start + 1])
                await asyncio.sleep(0.001)  # so that it arrives alone; if it does not, less is tested
                await until(lambda: buffers.stats().bytes_in_use == 0)
            assert buffers.stats().served > 1
            assert got == []
            writer.write(sent[-1:])
            await until(lambda: got == [b"hello\n"])
        finally:
            writer.close()
    await until(lambda: buffers.stats().bytes_in_use == 0)


async def test_a_client_that_does_not_trust_the_server(streams, contexts, reports):
    server_context, _ = contexts
    called = []
    server = await streams.start_server(lambda *streams: called.append(streams), "localhost", 0, ssl=server_context)
    async with server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await streams.open_connection(*server.sockets[0].getsockname()[:2], ssl=True, server_hostname="localhost")
    assert called == []
    await asyncio.sleep(0)
    reports.clear()  # the failed handshake, in debug mode


async def test_data_that_arrives_with_the_end_of_the_handshake_leaves_nothing_paused(streams, contexts):
    """It arrives while the reader knows only the transport below TLS, which would never be resumed."""
    server_context, client_context = contexts
    size = 100 * 16_000
    counted = []

    async def count(reader, writer):
        writer.write(b"go on\n")
        await writer.start_tls(server_context)
        try:
            async with asyncio.timeout(PATIENCE):
                counted.append(len(await reader.readexactly(size)))
        finally:
            writer.transport.abort()

    async with await streams.start_server(count, "localhost", 0, limit=KIB) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        assert await reader.readline() == b"go on\n"
        tls, outgoing = await handshake(client_context, reader, writer)
        for _ in range(100):
            tls.write(bytes(16_000))
        writer.write(outgoing.read())
        await reader.read()
        writer.transport.abort()
    assert counted == [size]
