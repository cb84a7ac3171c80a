"""Reads of `aiopool.streams` as coroutines: what happens before, between and instead of their steps."""

import asyncio
import weakref

import pytest
from feeding import Reading, feed, read_now
from shared import Thing

READS = {
    "read": lambda reader: reader.read(10),
    "read all": lambda reader: reader.read(),
    "readexactly": lambda reader: reader.readexactly(10),
    "readuntil": lambda reader: reader.readuntil(b"9"),
    "readline": lambda reader: reader.readline(),
    "readinto": lambda reader: reader.readinto(bytearray(10)),
}


@pytest.mark.parametrize("read", READS)
def test_a_woken_reader_learns_of_a_reset(reader, read):
    """It does not take the loss for the end of the stream, nor wait for more."""
    reading = Reading(READS[read](reader))
    feed(reader, b"012345678\n")
    reader.set_exception(ConnectionResetError())
    reading.advance()
    assert isinstance(reading.error, ConnectionResetError)


@pytest.mark.parametrize("read", READS)
def test_cancelling_a_woken_reader_loses_nothing(reader, read):
    reading = Reading(READS[read](reader))
    feed(reader, b"0123456789\n")
    reading.cancel()
    assert read_now(reader.readline()) == b"0123456789\n"


@pytest.mark.parametrize("read", READS)
def test_a_reader_that_finds_nothing_left_goes_on_waiting(reader, read):
    """Here asyncio's `read` would say that the stream has ended."""
    reading = Reading(READS[read](reader))
    feed(reader, b"first")
    assert read_now(reader.read(5)) == b"first"
    reading.advance()
    assert not reading.done
    feed(reader, b"0123456789")
    reader.feed_eof()
    reading.advance()
    assert reading.error is None


@pytest.mark.parametrize("read", ["read all", "readexactly", "readuntil", "readline"])
def test_a_read_can_be_cancelled_at_every_byte(reader, read):
    for byte in b"012345678":
        reading = Reading(READS[read](reader))
        feed(reader, bytes([byte]))
        reading.advance()
        reading.cancel()
    feed(reader, b"9\n")
    reader.feed_eof()
    assert read_now(reader.read()) == b"0123456789\n"


@pytest.mark.parametrize("read", READS)
def test_a_read_takes_nothing_before_it_runs(reader, read):
    """A task that is cancelled before its first step has taken nothing, even if bytes were there."""
    feed(reader, b"012345678\n")
    reader.feed_eof()
    begun = READS[read](reader)
    assert reader.buffered == 10
    begun.close()
    assert reader.buffered == 10
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        begun.send(None)
    begun = READS[read](reader)
    with pytest.raises(ZeroDivisionError):
        begun.throw(ZeroDivisionError)
    assert reader.buffered == 10


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("read", ["read", "readexactly", "readuntil", "readline"])
def test_a_read_creates_no_coroutine(aiopool, reader, read, waits):
    if aiopool.implementation == "python":
        pytest.skip("Python methods are coroutine functions")
    assert asyncio.iscoroutine(READS[read](reader))
    slow = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiopool.streams.StreamReader, f"_{read}_slow", lambda *args: slow.append(args))
        if not waits:
            feed(reader, b"0123456789\n")
        reading = Reading(READS[read](reader))
        if waits:
            assert not reading.done
            feed(reader, b"0123456789\n")
            reading.advance()
    assert len(reading.result) >= 10
    assert slow == []


def test_a_waiting_read_that_is_closed_has_ended(reader):
    begun = reader.readexactly(5)
    begun.send(None)
    begun.close()
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        begun.send(None)
    feed(reader, b"01234")
    assert read_now(reader.readexactly(5)) == b"01234"


def test_a_loop_whose_futures_cannot_be_awaited(aiopool, buffers):
    class Odd:
        def create_future(self):
            return 5

    with pytest.raises(TypeError):
        read_now(aiopool.streams.StreamReader(buffers, loop=Odd()).readexactly(5))


def test_an_uninitialized_reader_raises_attribute_errors(aiopool):
    reader = aiopool.streams.StreamReader.__new__(aiopool.streams.StreamReader)
    for call in (lambda: reader.get_buffer(-1), lambda: reader.buffer_updated(1), reader._have_more):
        with pytest.raises(AttributeError):
            call()
    for read in READS:
        with pytest.raises(AttributeError):
            read_now(READS[read](reader))


def test_reads_run_as_tasks_and_can_be_told_apart(aiopool):
    async def main():
        reader = aiopool.testing.FedReader()
        task = asyncio.create_task(reader.readexactly(5))
        assert "StreamReader.readexactly" in repr(task)
        await asyncio.sleep(0)
        task.get_stack()
        reader.feed_data(b"01234and more")
        assert await task == b"01234"
        assert await asyncio.wait_for(reader.read(3), 1) == b"and"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(3), 0)
        assert await asyncio.gather(reader.readexactly(2), reader.readexactly(3)) == [b" m", b"ore"]

    asyncio.run(main())


def test_a_read_by_hand_keeps_no_frame_of_its_caller(aiopool, loop):
    """The exception that ends a read may be reused. A traceback in it would hold frames."""
    reader = aiopool.testing.FedReader(loop=loop)
    reader.feed_data(b"ab")

    def by_hand():
        held = Thing()
        try:
            reader.read(1).send(None)
        except StopIteration:
            return weakref.ref(held)

    assert by_hand()() is None
