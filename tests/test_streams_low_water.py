"""Readers that wait in the kernel for a big message: woken seldom, and never waiting for what does not come.

That the mark is never above what is missing, whatever happens to a reader, is in test_inbox.py; here are real sockets.
"""

import asyncio
from contextlib import asynccontextmanager

import anyio
import pytest
from loops import PATIENCE
from streaming import KIB, MIB, ON_EACH_LOOP, connected, mark_of, reported, settled, skip_without_marks, until

pytestmark = ON_EACH_LOOP
reports = pytest.fixture(reported)
_known_to_work = pytest.fixture(autouse=True)(skip_without_marks)


@asynccontextmanager
async def connected_in_time(aiopool):
    """A reader, its socket, and the peer that sends to it; all that is to be waited for comes in good time."""
    async with connected(aiopool.streams, buffers=aiopool.BufferPool()) as (reader, writer, peer):
        with anyio.fail_after(PATIENCE):
            yield reader, writer.get_extra_info("socket"), peer


async def test_a_big_message_wakes_once_or_twice(aiopool):
    async with connected_in_time(aiopool) as (reader, sock, peer):
        tail = aiopool._low_water.TAIL
        size = 300 * KIB + tail
        waiting = asyncio.create_task(reader.readexactly(size))
        await settled()
        assert mark_of(sock) == 300 * KIB
        for _ in range(29):
            await peer.send(bytes(10 * KIB))
            await settled()
        assert reader._unread() == 0
        await peer.send(bytes(10 * KIB + tail))
        assert await waiting == bytes(size)
        assert mark_of(sock) == 1


async def test_the_end_of_a_message_is_acknowledged_first_and_waited_for_without_a_mark(aiopool):
    async with connected_in_time(aiopool) as (reader, sock, peer):
        most, tail = aiopool._low_water.MOST, aiopool._low_water.TAIL
        waiting = asyncio.create_task(reader.readexactly(most + tail))
        await settled()
        assert mark_of(sock) == most
        set_mark, marks = reader._set_mark, []
        reader._set_mark = lambda *args: (marks.append(args), set_mark(*args))
        await peer.send(bytes(most))
        await until(lambda: reader._unread() > 0)
        assert mark_of(sock) == 1
        await peer.send(bytes(tail))
        assert await waiting == bytes(most + tail)
        assert marks == [(1, True)]


async def test_smaller_messages_are_never_waited_for_in_the_kernel(aiopool):
    async with connected_in_time(aiopool) as (reader, sock, peer):
        waiting = asyncio.create_task(reader.readexactly(aiopool._low_water.LEAST + aiopool._low_water.TAIL - 1))
        await peer.send(b"x")
        await until(lambda: reader._unread() == 1)
        assert mark_of(sock) == 1
        waiting.cancel()


async def test_who_is_cancelled_leaves_no_mark(aiopool):
    """Whoever reads next may want a single byte; or it is a TLS handshake, which does not ask the reader."""
    async with connected_in_time(aiopool) as (reader, sock, peer):
        waiting = asyncio.create_task(reader.readexactly(MIB))
        await settled()
        assert mark_of(sock) > 1
        waiting.cancel()
        await settled()
        assert mark_of(sock) == 1
        await peer.send(b"x")
        assert await reader.read(10) == b"x"


@pytest.mark.parametrize("end", ["shutdown", "reset"])
async def test_a_stream_that_ends_before_the_mark(aiopool, end):
    async with connected_in_time(aiopool) as (reader, sock, peer):
        waiting = asyncio.create_task(reader.readexactly(MIB))
        await settled()
        assert mark_of(sock) > 1
        await peer.send(bytes(1000))
        if end == "shutdown":
            peer.end()
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await waiting
            assert caught.value.partial == bytes(1000)
        else:
            peer.reset()
            with pytest.raises(ConnectionResetError):
                await waiting


async def test_a_descriptor_is_let_go_of_with_the_connection(aiopool):
    """The next connection may get the same one, and must keep its mark."""
    async with connected_in_time(aiopool) as (reader, _, _):
        waiting = asyncio.create_task(reader.readexactly(MIB))
        await settled()
        set_mark, marks = reader._set_mark, []
        reader._set_mark = lambda *args: (marks.append(args), set_mark(*args))
        reader._transport.abort()
        with pytest.raises(asyncio.IncompleteReadError):
            await waiting
        assert marks == []
