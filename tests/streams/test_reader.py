"""The reader of `aiopool.streams` beside asyncio's: the same bytes, in any pieces and with any reads, give the same.

Transports are simulated here (see feeding.py); test_connections.py has real ones.
"""

import asyncio
import ctypes
import random
import sys
import weakref

import pytest
from feeding import Pausable, Reading, feed, read_now
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from shared import NO_GIL, Thing

SMALL = {"FIRST": 16, "MOST": 64, "BIG": 32, "ROOM": 4, "PINNED": 4}
"""Constants with which a few bytes take every path that otherwise needs megabytes."""


@pytest.fixture(scope="module")
def loop():
    """A loop that never runs: it only creates futures."""
    loop = asyncio.new_event_loop()
    loop.set_debug(False)
    yield loop
    loop.close()


def shrink(patch, aiopool):
    """Use small constants."""
    for name, value in SMALL.items():
        patch.setattr(aiopool.streams._receive_buffer, name, value)
    tell_sizes(aiopool)


def tell_sizes(aiopool):
    """Copy the sizes to the C extension, which has its own."""
    if aiopool.implementation == "native":
        sizes = vars(aiopool.streams._receive_buffer)
        aiopool._native.native.set_receive_sizes(*(sizes[name] for name in ("PINNED", "FIRST", "MOST", "BIG", "ROOM")))


@pytest.fixture
def buffers(aiopool):
    return aiopool.BufferPool()


@pytest.fixture
def reader(aiopool, buffers, loop):
    return aiopool.streams.StreamReader(buffers, loop=loop)


def turn(loop):
    """Let the loop run its pending callbacks."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def pattern(length, seed=0):
    """`length` random bytes."""
    return random.Random(seed).randbytes(length)


def address(view):
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


# --- any program, beside asyncio's reader ---

LINES = bytes(random.Random(1).choices(b"abcdefgh|\n", k=1 << 19))
ONE_LINE = bytes(random.Random(2).choices(b"abcdefgh", k=1 << 19))


class Pair:
    """Two readers, aiopool's and asyncio's, that get the same bytes and calls."""

    def __init__(self, ours, theirs, start, over_tls):
        self.ours, self.theirs = ours, theirs
        self.over_tls = over_tls
        self.transports = Pausable("a context" if over_tls else None), Pausable()
        ours.set_transport(self.transports[0])
        theirs.set_transport(self.transports[1])
        self.position = start
        self.pending = None
        self.kept = []
        self.ended = False

    # the steps of a program

    def feed(self, length, text=LINES):
        if self.ended or not length:
            return
        self.position = start = (self.position + 4097) % (len(text) - length)
        feed(self.ours, text[start : start + length])
        self.theirs.feed_data(text[start : start + length])
        self.advance()

    def feed_line(self, length):
        self.feed(length, ONE_LINE)

    def offer(self):
        """An incomplete TLS record has arrived."""
        if self.over_tls and not self.ended:
            self.ours.get_buffer(-1)
            turn(self.ours._loop)

    def eof(self):
        if not self.ended:
            self.ended = True
            self.ours.feed_eof()
            self.theirs.feed_eof()
            self.advance()

    def reset(self):
        self.ended = True
        error = ConnectionResetError()
        self.ours.set_exception(error)
        self.theirs.set_exception(error)
        self.advance()
        assert self.ours.exception() is self.theirs.exception() is error

    def read(self, n):
        self.start("read", n)

    def readexactly(self, n):
        self.start("readexactly", n)

    def readuntil(self, separator):
        self.start("readuntil", separator)

    def readline(self):
        self.start("readline")

    def readinto(self, n):
        target = bytearray(n)

        async def ours():
            return memoryview(target)[: await self.ours.readinto(target)]

        if self.is_free():
            self.compare(Reading(ours()), Reading(self.theirs.read(n)), ("readinto", n))

    def cancel(self):
        if self.pending is not None and not self.waits_for_all():
            for reading in self.pending[:2]:
                reading.cancel()
            self.pending = None

    def drop(self):
        self.kept.clear()

    # checks

    def waits_for_all(self):
        """Whether a read to the end waits: asyncio's reader has already taken bytes, and loses them if cancelled."""
        return self.pending is not None and self.pending[2] == ("read", -1)

    def is_free(self, *call):
        """Whether asyncio's reader has a clear answer: it has none if a read takes bytes that another has searched."""
        if self.pending is None:
            return True
        if self.waits_for_all() or call == ("read", -1):
            return False
        return self.pending[2][0] == "readexactly" or not self.theirs._buffer

    def start(self, method, *args):
        if self.is_free(method, *args):
            ours, theirs = (Reading(getattr(each, method)(*args)) for each in (self.ours, self.theirs))
            self.compare(ours, theirs, (method, *args))

    def compare(self, ours, theirs, call):
        assert ours.done == theirs.done
        if not ours.done:
            assert self.pending is None
            self.pending = ours, theirs, call
            return
        outcome, expected = ours.outcome(), theirs.outcome()
        if outcome[0] == expected[0] == "gave":
            self.kept.append((ours.result, outcome[1]))
            # aiopool's reader may return less than there is, and the rest with the next read.
            while len(outcome[1]) < len(expected[1]):
                more = read_now(self.ours.read(len(expected[1]) - len(outcome[1])))
                assert len(more) > 0
                outcome = ("gave", outcome[1] + bytes(more))
        assert outcome == expected

    def advance(self):
        if self.pending is not None:
            ours, theirs, call = self.pending
            ours.advance()
            theirs.advance()
            self.pending = None
            self.compare(ours, theirs, call)

    def check(self):
        """Check what must be true after every step."""
        for view, expected in self.kept:
            assert bytes(view) == expected
        if self.ours.exception() is None and not self.waits_for_all():
            assert self.ours.buffered == len(self.theirs._buffer)
            assert self.ours.at_eof() == self.theirs.at_eof()
        if self.pending is not None:
            assert not self.transports[0].paused


def programs(lengths):
    """Lists of steps that may happen to a connection."""
    separators = [b"\n", b"|", b"a|", b"abc", bytearray(b"\n")]
    if sys.version_info >= (3, 13):
        separators += [(b"\n", b"|"), (b"gh|", b"h"), (b"bcdefg", b"cd", b"\n")]
    with_length = ["feed", "feed", "feed_line", "read", "readexactly", "readexactly", "readinto"]
    step = st.one_of(
        *(st.tuples(st.just(name), lengths) for name in with_length),
        st.tuples(st.just("readuntil"), st.sampled_from(separators)),
        *(st.just((name,)) for name in ["readline", "offer", "cancel", "drop"]),
    )
    end = st.sampled_from([("eof",), ("eof",), ("reset",)])
    return st.tuples(
        st.lists(step, max_size=40),
        st.lists(st.just(("read", -1)), max_size=1),
        st.lists(st.tuples(st.just("feed"), lengths), max_size=4),
        st.lists(end, max_size=1),
        st.lists(step, max_size=6),
    ).map(lambda parts: [step for part in parts for step in part])


def run(reader_class, buffers, loop, programs, limit, seed):
    """Run two connections over one pool, each with its program, in a random order."""

    def readers():
        return reader_class(buffers, limit=limit, loop=loop), asyncio.StreamReader(limit=limit, loop=loop)

    pairs = [Pair(*readers(), start, over_tls) for start, over_tls in ((0, False), (1 << 17, True))]
    order = [which for which, program in enumerate(programs) for _ in program]
    random.Random(seed).shuffle(order)
    rest = [iter(program) for program in programs]
    for which in order:
        name, *args = next(rest[which])
        getattr(pairs[which], name)(*args)
        for pair in pairs:
            pair.check()
        if not any(pair.ours.buffered or pair.kept for pair in pairs):
            assert buffers.stats().bytes_in_use == 0
    for pair in pairs:
        for reading in (pair.pending or ())[:2]:
            reading.cancel()


def numbers(*ranges):
    return st.one_of(*(st.integers(low, high) for low, high in ranges))


SIZES = {
    # lengths, the longest of them, and limits
    "as it is": (
        numbers((0, 300), (4000, 4200), (16000, 17000), (60_000, 70_000), (120_000, 300_000)),
        300_000,
        st.sampled_from([1, 5, 1000, 64 * 1024, 1 << 20]),
    ),
    "small": (numbers((0, 10), (0, 200)), 200, st.sampled_from([1, 2, 5, 20, 100, 1000])),
}


def check_any_program(aiopool, loop, sizes, reader_class, examples):
    lengths, longest, limits = SIZES[sizes]

    @settings(
        deadline=None,
        max_examples=examples,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate] if reader_class is not aiopool.streams.StreamReader else list(Phase),
    )
    @given(st.tuples(programs(lengths), programs(lengths)), limits, st.integers(0, 1000))
    def check(programs, limit, seed):
        buffers = aiopool.BufferPool(min_size=8, max_size=longest)
        run(reader_class, buffers, loop, programs, limit, seed)

    try:
        with pytest.MonkeyPatch.context() as patch:
            if sizes == "small":
                shrink(patch, aiopool)
            check()
    finally:
        tell_sizes(aiopool)


# The small programs reach every branch of _receive_buffer.py; after a change there, check with `coverage run --branch`.
@pytest.mark.parametrize(("sizes", "examples"), [("as it is", 40), ("small", 300)])
def test_any_program_gives_what_asyncios_reader_gives(aiopool, loop, sizes, examples):
    check_any_program(aiopool, loop, sizes, aiopool.streams.StreamReader, examples)


def with_buffer(buffer_class):
    """Return a function that creates a reader class whose receive buffer is of that class."""

    def broken(streams):
        class Broken(streams.StreamReader):
            def __init__(self, buffers, **kwds):
                super().__init__(buffers, **kwds)
                self._received = buffer_class(streams._receive_buffer.ReceiveBuffer)(buffers)

        return Broken

    broken.__name__ = buffer_class.__name__
    return broken


@with_buffer
def moves_to_the_front(base):
    """Makes room by moving unread bytes to the front of the chunk, as readers with a buffer of their own do."""

    class Broken(base):
        def _grow(self):
            unread = self.unread
            if self._later is not None or max(self.needed, unread + 1) > len(self._chunk):
                return super()._grow()
            self._chunk[:unread] = bytes(self._chunk[self._start : self._end])
            self._start, self._end = 0, unread
            return self._chunk

    return Broken


@with_buffer
def keeps_its_chunk(base):
    """Receives into the same chunk again when all its bytes have been read."""

    class Broken(base):
        def _acquire(self, size):
            last = getattr(self, "last", None)
            if last is None or len(last) < size:
                self.last = last = super()._acquire(size)
            return last

    return Broken


@with_buffer
def forgets_what_came_later(base):
    """Merges only the first chunk."""

    class Broken(base):
        def _merge(self, count, size):
            if count:
                self._later = None
            return super()._merge(0, size)

    return Broken


def stays_paused(streams):
    """Does not resume before it waits."""

    class Broken(streams.StreamReader):
        def _wait(self, caller, needed):
            self._paused, paused = False, self._paused
            waiter = super()._wait(caller, needed)
            self._paused = paused
            return waiter

    return Broken


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(moves_to_the_front, marks=pytest.mark.skipif(NO_GIL, reason="results are copies there")),
        keeps_its_chunk,
        forgets_what_came_later,
        stays_paused,
    ],
)
def test_the_programs_find_broken_readers(reference, loop, broken):
    with pytest.raises((AssertionError, AttributeError)):
        check_any_program(reference, loop, "small", broken(reference.streams), 1000)


# --- where bytes go ---

KIB = 1024


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


@pytest.mark.parametrize("at_once", [1, 3, 1000])
@pytest.mark.parametrize("piece", [16_000, 100_000])
def test_a_long_line_is_not_moved_over_and_over(aiopool, buffers, loop, piece, at_once):
    """However much arrives before the woken reader runs. The bytes acquired bound the bytes moved."""
    reader = aiopool.streams.StreamReader(buffers, limit=16 << 20, loop=loop)
    line = b"x" * (8 << 20) + b"\n"
    reading = Reading(reader.readline())
    for number, start in enumerate(range(0, len(line), piece)):
        feed(reader, line[start : start + piece])
        if number % at_once == 0:
            reading.advance()
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


# --- events between the wake and the read ---

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


# --- receiving without waiting ---


class Plain(Pausable):
    """A transport whose socket may be received from."""

    def __init__(self, reader):
        super().__init__()
        self._protocol = type("Protocol", (), {"reader": reader})
        self.aborted = False

    def is_reading(self):
        return not self.paused

    def get_protocol(self):
        return self._protocol

    def abort(self):
        self.aborted = True


@pytest.fixture
def kernel(aiopool, reader, monkeypatch):
    """A simulated kernel: it has the pieces of bytes, or the errors, in its list, and then nothing."""
    pieces = []
    asked = []

    def receive_now(descriptor, received, most):
        asked.append(most)
        if not pieces:
            return 0
        piece = pieces.pop(0)
        if isinstance(piece, OSError):
            raise piece
        room = received.room()
        nbytes = min(len(piece), len(room), most)
        room[:nbytes] = piece[:nbytes]
        received.received(nbytes)
        if piece[nbytes:]:
            pieces.insert(0, piece[nbytes:])
        return nbytes

    monkeypatch.setattr(aiopool.streams._reader, "receive_now", receive_now)
    monkeypatch.setattr(aiopool.streams._reader, "descriptor_of", lambda transport: 1000)
    reader.set_transport(Plain(reader))
    reader._left_out = reader._leave_out
    return type("Kernel", (), {"pieces": pieces, "asked": asked})


def test_bytes_in_the_kernel_are_received_without_waiting(reader, kernel):
    kernel.pieces.extend([b"one\ntw", b"o\n", b"34", b"56789"])
    assert read_now(reader.readline()) == b"one\n"
    assert read_now(reader.readline()) == b"two\n"
    assert read_now(reader.readexactly(6)) == b"345678"
    assert read_now(reader.read(10)) == b"9"


def test_a_reader_lets_other_tasks_run_even_if_the_kernel_has_more(aiopool, reader, kernel):
    budget = aiopool.streams._reader.BUDGET
    kernel.pieces.append(bytes(64 << 20))
    reading = Reading(reader.readexactly(8 << 20))
    received = reader.buffered
    assert not reading.done
    assert received <= budget
    feed(reader, b"x")  # the loop has had its turn
    reader._wake()
    reading.advance()
    assert not reading.done
    assert received < reader.buffered <= 2 * budget + 1


def test_a_reader_that_finds_nothing_tries_less_often(aiopool, reader, kernel):
    for _ in range(200):
        reading = Reading(reader.readexactly(1))
        assert not reading.done
        feed(reader, b"x")
        reading.advance()
        assert reading.result == b"x"
    assert 2 < len(kernel.asked) < 20
    kernel.pieces.extend([b"x"] * 100)
    waits = 0
    while kernel.pieces:
        reading = Reading(reader.readexactly(1))
        if not reading.done:
            waits += 1
            feed(reader, b"x")
            reading.advance()
    assert waits <= aiopool.streams._reader.LEAVE_OUT


def test_a_connection_that_breaks_during_a_receive(reader, kernel):
    kernel.pieces.extend([b"0123", ConnectionResetError(104, "reset")])
    for _ in range(2):
        with pytest.raises(ConnectionResetError, match="reset"):
            read_now(reader.readexactly(10))
    assert reader._transport.aborted


def test_a_transport_that_other_code_paused_or_took_over_is_left_alone(reader, kernel):
    kernel.pieces.append(b"0123")
    reader._transport.paused = True
    reading = Reading(reader.readexactly(4))
    assert not reading.done
    reading.cancel()
    reader._transport.paused = False
    reader._transport._protocol = object()
    reading = Reading(reader.readexactly(4))
    assert not reading.done
    reading.cancel()
    assert kernel.asked == []


# --- bad input ---


def test_an_absurd_length_is_rejected_before_anything_is_allocated(aiopool, loop):
    buffers = aiopool.BufferPool(max_size=1024 * KIB)
    reader = aiopool.streams.StreamReader(buffers, limit=64 * KIB, loop=loop)
    for n in (1024 * KIB + 1, 1 << 40, 1 << 100):
        with pytest.raises(asyncio.LimitOverrunError, match=rf"^{n} bytes are more than max_size \(1048576\)"):
            read_now(reader.readexactly(n))
    assert buffers.stats().served == 0
    feed(reader, b"all the same")
    assert read_now(reader.read(20)) == b"all the same"
    large = aiopool.streams.StreamReader(buffers, limit=2048 * KIB, loop=loop)
    assert not Reading(large.readexactly(2048 * KIB)).done


def test_a_reader_says_what_is_wrong_with_its_arguments(aiopool, reader, buffers, loop):
    streams = aiopool.streams
    for limit, error, message in [
        (0, ValueError, "limit must be more than 0 bytes"),
        (-1, ValueError, "limit must not be negative, but is -1"),
        ("x", TypeError, "limit must be an integer, not 'x'"),
    ]:
        with pytest.raises(error, match=message):
            streams.StreamReader(buffers, limit=limit, loop=loop)
    with pytest.raises(TypeError, match="buffers must be a BufferPool, not 5"):
        streams.StreamReader(5, loop=loop)
    feed(reader, b"untouched")
    with pytest.raises(ValueError, match="n must not be negative, but is -1"):
        read_now(reader.readexactly(-1))
    with pytest.raises(TypeError):
        read_now(reader.readexactly("x"))
    for separator in ((), b"", (b"x", b"")):
        with pytest.raises(ValueError, match="separators of at least one byte"):
            read_now(reader.readuntil(separator))
    for separator in ("x", 5, [b"x"], (b"x", "y"), None):
        with pytest.raises(TypeError, match="takes bytes or a tuple of bytes, not"):
            read_now(reader.readuntil(separator))
    with pytest.raises(TypeError, match=r"takes a writable buffer, not b'x'"):
        read_now(reader.readinto(b"x"))
    with pytest.raises(TypeError):
        read_now(reader.readinto(memoryview(bytearray(10))[::2]))
    assert read_now(reader.read(20)) == b"untouched"


def test_a_reader_is_true_and_its_repr_shows_the_bytes_it_holds(reader):
    assert reader
    assert repr(reader) == "<aiopool.streams.StreamReader 0 bytes>"
    feed(reader, b"abc")
    reader.feed_eof()
    assert repr(reader) == "<aiopool.streams.StreamReader 3 bytes, eof>"


def test_readinto_takes_any_writable_bytes(reader):
    import array

    numbers = array.array("I", [0, 0])
    feed(reader, bytes(range(8)))
    assert read_now(reader.readinto(numbers)) == 8
    assert numbers.tobytes() == bytes(range(8))
    assert read_now(reader.readinto(bytearray())) == 0


def test_separators_of_several_lengths(reader):
    """The separator that ends first wins, and the shortest of those that end together."""
    feed(reader, b"one--two=-three-=four")
    assert read_now(reader.readuntil((b"--", b"=", b"-="))) == b"one--"
    assert read_now(reader.readuntil((b"--", b"=-", b"="))) == b"two="
    assert read_now(reader.readuntil((b"-=f", b"three-="))) == b"-three-="
    assert read_now(reader.readuntil(memoryview(b"u"))) == b"fou"


@pytest.mark.parametrize("read", ["readexactly", "read"])
def test_a_numpy_integer_is_a_valid_length(reader, read):
    """A position plus a number of 8 or 16 bits overflows."""
    numpy = pytest.importorskip("numpy")
    data = random.Random(1).randbytes(70_000)
    feed(reader, data)
    assert read_now(reader.readexactly(100)) == data[:100]
    assert read_now(getattr(reader, read)(numpy.uint8(200))) == data[100:300]
    assert read_now(reader.readexactly(numpy.uint16(60_000))) == data[300:60_300]
    assert read_now(reader.readexactly(9_700)) == data[60_300:]


def test_a_length_with_thousands_of_digits_is_rejected(reader):
    with pytest.raises(asyncio.LimitOverrunError):
        read_now(reader.readexactly(1 << 80_000))


# --- a read as a coroutine ---


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


@pytest.mark.parametrize("call", ["read(1, 2)", "readexactly()", "readexactly(m=5)", "readline(5)", "readuntil(n=3)"])
def test_wrong_arguments_raise_at_the_call(reader, call):
    with pytest.raises(TypeError, match=r"argument|positional"):
        eval(f"reader.{call}", {"reader": reader})


def test_arguments_by_name(reader):
    feed(reader, b"0123456789\nline|")
    assert read_now(reader.read(n=3)) == b"012"
    assert read_now(reader.readexactly(n=2)) == b"34"
    assert read_now(reader.readuntil()) == b"56789\n"
    assert read_now(reader.readuntil(separator=b"|")) == b"line|"


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
