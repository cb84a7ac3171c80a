"""Any program gives the same over the reader of `aiopool.streams` as over asyncio's: any pieces, any reads, any end."""

import asyncio
import random
import sys

import pytest
from feeding import Pausable, Reading, feed, read_now
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from shared import NO_GIL

SMALL = {"FIRST": 16, "MOST": 64, "BIG": 32, "ROOM": 4, "PINNED": 4}
"""Constants with which a few bytes take every path that otherwise needs megabytes."""


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


def turn(loop):
    """Let the loop run its pending callbacks."""
    loop.call_soon(loop.stop)
    loop.run_forever()


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
