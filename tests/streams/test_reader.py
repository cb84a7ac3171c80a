"""Where the reader of `aiopool.streams` puts bytes, when it pauses its transport, and what it does without memory.

Transports are simulated here (see feeding.py); test_connections.py has real ones. test_reader_property.py compares the
reader with asyncio's.
"""

import random

import pytest
from feeding import Pausable, Reading, address, feed, read_now
from shared import KIB


def pattern(length, seed=0):
    """`length` random bytes."""
    return random.Random(seed).randbytes(length)


@pytest.mark.usefixtures("results_are_views")
@pytest.mark.parametrize("size", [300 * KIB, 1024 * KIB, 1024 * KIB + 1])
def test_a_large_message_that_a_read_waits_for_is_received_into_its_view(reader, size):
    written = []

    def receive(data):
        offered = reader.get_buffer(-1)
        offered[: len(data)] = data
        written.append(address(offered))
        reader.buffer_updated(len(data))

    message = pattern(size)
    reading = Reading(reader.readexactly(size))
    for start in range(0, size, 100_000):
        receive(message[start : start + 100_000])
    reading.advance()
    assert reading.result == message
    assert written == [address(reading.result) + start for start in range(0, size, 100_000)]


@pytest.mark.usefixtures("results_are_views")
def test_only_bytes_that_arrived_before_the_read_are_copied(reader):
    """A header comes with the beginning of its body."""
    message = pattern(1024 * KIB)
    feed(reader, b"head" + message[: 10 * KIB])
    assert read_now(reader.readexactly(4)) == b"head"
    reading = Reading(reader.readexactly(len(message)))
    offered = reader.get_buffer(-1)
    rest = message[10 * KIB :]
    assert len(offered) >= len(rest)
    offered[: len(rest)] = rest
    reader.buffer_updated(len(rest))
    reading.advance()
    assert reading.result == message
    assert address(reading.result) == address(offered) - 10 * KIB


@pytest.mark.usefixtures("results_are_views")
def test_many_messages_come_out_of_one_receive(reader):
    messages = [pattern(2 * KIB, seed) for seed in range(7)]
    offered = reader.get_buffer(-1)
    received = b"".join(messages)
    offered[: len(received)] = received
    reader.buffer_updated(len(received))
    views = [read_now(reader.readexactly(2 * KIB)) for _ in messages]
    assert views == messages
    assert [address(view) - address(offered) for view in views] == [2 * KIB * number for number in range(7)]


@pytest.mark.usefixtures("results_are_views")
@pytest.mark.parametrize("read", ["readexactly", "read"])
def test_a_message_smaller_than_a_sixteenth_of_its_chunk_is_copied(reader, buffers, read):
    feed(reader, bytes(16 * KIB))
    large = read_now(getattr(reader, read)(KIB))
    small = read_now(getattr(reader, read)(KIB - 1))
    read_now(reader.read(16 * KIB))
    assert buffers.stats().bytes_in_use == 16 * KIB
    del large
    assert buffers.stats().bytes_in_use == 0
    assert bytes(small) == bytes(KIB - 1)


@pytest.mark.parametrize(("before", "held"), [(0, 16 * KIB), (1024 * KIB, 0)])
def test_the_beginning_of_a_message_holds_no_large_chunk(reader, buffers, before, held):
    """The rest may arrive late, or never."""
    reading = Reading(reader.readexactly(before))
    feed(reader, bytes(before) + b"ten bytes!")
    reading.advance()
    reading = Reading(reader.readexactly(11))
    assert buffers.stats().bytes_in_use == held
    feed(reader, b"!")
    reading.advance()
    assert reading.result == b"ten bytes!!"


@pytest.mark.parametrize("read", ["readline", "read"])
@pytest.mark.parametrize("at_once", [1, 3, 1000])
@pytest.mark.parametrize("piece", [16_000, 100_000])
def test_a_long_result_is_not_moved_over_and_over(aiopool, buffers, loop, piece, at_once, read):
    """However much arrives before the woken reader runs. The bytes acquired bound the bytes moved."""
    reader = aiopool.streams.StreamReader(buffers, limit=16 << 20, loop=loop)
    line = b"x" * (8 << 20) + b"\n"
    reading = Reading(getattr(reader, read)())
    for number, start in enumerate(range(0, len(line), piece)):
        feed(reader, line[start : start + piece])
        if number % at_once == 0:
            reading.advance()
    reader.feed_eof()
    reading.advance()
    assert reading.result == line
    stats = buffers.stats()
    assert sum(each.asked for each in (*stats.classes, stats.oversize)) < 6 * len(line)


def test_a_transport_is_paused_above_twice_the_limit_and_resumed_at_the_limit(aiopool, buffers, loop):
    reader = aiopool.streams.StreamReader(buffers, limit=1000, loop=loop)
    reader.set_transport(transport := Pausable())
    feed(reader, bytes(2000))
    assert not transport.paused
    feed(reader, b"x")
    assert transport.paused
    assert len(read_now(reader.read(1000))) == 1000
    assert transport.paused
    assert len(read_now(reader.read(1))) == 1
    assert not transport.paused  # although no read waits
    assert len(read_now(reader.read(1000))) == 1000
    # Bytes that a read waits for do not count towards the limit.
    reading = Reading(reader.readexactly(5000))
    feed(reader, bytes(5000))
    assert not transport.paused
    feed(reader, bytes(2001))
    assert transport.paused
    reading.advance()
    assert len(reading.result) == 5000
    # readexactly checks only at the end of a chunk, or when it has to wait.
    read_now(reader.readexactly(2001))
    assert not transport.paused


def test_a_transport_is_paused_until_a_large_message_is_read(aiopool, buffers, loop):
    """Bytes that arrived meanwhile would have to be copied. But after a cancelled read, the usual limit applies."""
    reader = aiopool.streams.StreamReader(buffers, limit=1024 * KIB, loop=loop)
    reader.set_transport(transport := Pausable())
    reading = Reading(reader.readexactly(300 * KIB))
    feed(reader, bytes(300 * KIB))
    assert transport.paused
    reading.advance()
    assert not transport.paused
    reading = Reading(reader.readexactly(300 * KIB))
    feed(reader, bytes(300 * KIB))
    assert transport.paused
    reading.cancel()
    assert not transport.paused
    assert reader.buffered == 300 * KIB


def test_a_transport_that_cannot_pause_loses_nothing(reader):
    class Unstoppable(Pausable):
        def pause_reading(self):
            raise NotImplementedError

    reader.set_transport(Unstoppable())
    for seed in range(50):
        feed(reader, pattern(20 * KIB, seed))
    for seed in range(50):
        assert read_now(reader.readexactly(20 * KIB)) == pattern(20 * KIB, seed)


@pytest.fixture
def scarce(aiopool):
    """A pool that has no memory while its list is not empty."""
    without = []

    class Scarce(aiopool.BufferPool):
        def acquire(self, size, /):
            if without:
                raise MemoryError
            return super().acquire(size)

    pool = Scarce()
    pool.without = without
    return pool


def test_without_memory_nothing_is_lost(aiopool, scarce, loop):
    reader = aiopool.streams.StreamReader(scarce, loop=loop)
    feed(reader, pattern(100))
    reading = Reading(reader.readexactly(100 * KIB))
    scarce.without.append(True)
    with pytest.raises(MemoryError):
        reader.get_buffer(-1)
    scarce.without.clear()
    feed(reader, pattern(100 * KIB)[100:])
    reading.advance()
    assert reading.result == pattern(100 * KIB)


def test_bytes_in_several_chunks_are_not_lost_without_memory(aiopool, scarce, loop):
    reader = aiopool.streams.StreamReader(scarce, loop=loop, limit=1 << 20)
    data = pattern(300 * KIB)
    feed(reader, data)
    scarce.without.append(True)
    for read in (lambda: reader.readexactly(200 * KIB), lambda: reader.readuntil(b"nowhere")):
        with pytest.raises(MemoryError):
            read_now(read())
    scarce.without.clear()
    assert read_now(reader.readexactly(len(data))) == data


def test_the_end_needs_no_memory(aiopool, scarce, loop):
    """A connection that is lost for lack of memory says so."""
    reader = aiopool.streams.StreamReader(scarce, loop=loop)
    feed(reader, pattern(100 * KIB))
    feed(reader, pattern(100 * KIB))
    reading = Reading(reader.readexactly(400 * KIB))
    scarce.without.append(True)
    reader.set_exception(MemoryError())
    reading.advance()
    assert isinstance(reading.error, MemoryError)
    assert scarce.stats().bytes_in_use == 0


def test_a_reader_is_true_and_its_repr_shows_the_bytes_it_holds(reader):
    assert reader
    assert repr(reader) == "<aiopool.streams.StreamReader 0 bytes>"
    feed(reader, b"abc")
    reader.feed_eof()
    assert repr(reader) == "<aiopool.streams.StreamReader 3 bytes, eof>"
