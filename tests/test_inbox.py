"""The reader of `aiopool.streams` beside asyncio's: the same bytes in any pieces, read in any way, give the same.

Here transports are played (see feeding.py); test_streams.py has real ones.
"""

import asyncio
import ctypes
import random
import sys

import pytest
from feeding import Pausable, Reading, feed, read_now
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.filterwarnings("ignore:Buffers are not used again on Python 3.11:RuntimeWarning")

SMALL = {"FIRST": 16, "MOST": 64, "BIG": 32, "ROOM": 4, "PINNED": 4}
"""Constants with which a few bytes go every way that else takes megabytes."""


@pytest.fixture(scope="module")
def loop():
    """Never runs: it only makes futures."""
    loop = asyncio.new_event_loop()
    loop.set_debug(False)
    yield loop
    loop.close()


def shrink(patch, aiopool):
    """Use small constants."""
    for name, value in SMALL.items():
        patch.setattr(aiopool._inbox, name, value)
    patch.setattr(aiopool.streams, "PINNED", SMALL["PINNED"])


@pytest.fixture
def buffers(aiopool):
    return aiopool.BufferPool()


@pytest.fixture
def reader(aiopool, buffers, loop):
    return aiopool.streams.StreamReader(buffers, loop=loop)


def turn(loop):
    """What was to be done soon is done."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def pattern(length, seed=0):
    return random.Random(seed).randbytes(length)


def address(view):
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


# --- any program, beside asyncio's reader ---

LINES = bytes(random.Random(1).choices(b"abcdefgh|\n", k=1 << 19))
ONE_LINE = bytes(random.Random(2).choices(b"abcdefgh", k=1 << 19))


class Pair:
    """Two readers, ours and asyncio's, to which the same happens."""

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

    # what may happen

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
        """A record has not come to its end yet."""
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

    # what follows

    def waits_for_all(self):
        """asyncio's reader then has taken already what came, and loses it if it is cancelled."""
        return self.pending is not None and self.pending[2] == ("read", -1)

    def is_free(self, *call):
        """Whether asyncio's reader has a clear answer: it has none if somebody takes what another has searched."""
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
            # We may give less than there is, and the rest when it is asked for.
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
        """What is true after every step."""
        for view, expected in self.kept:
            assert bytes(view) == expected
        if self.ours.exception() is None and not self.waits_for_all():
            assert self.ours._unread() == len(self.theirs._buffer)
            assert self.ours.at_eof() == self.theirs.at_eof()
        if self.pending is not None:
            assert not self.transports[0].paused


def programs(lengths):
    """What may happen to a connection, in a list."""
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
    """Two connections over one pool, each with its program, in some order."""
    pairs = [
        Pair(reader_class(buffers, limit=limit, loop=loop), asyncio.StreamReader(limit=limit, loop=loop), start, over_tls)
        for start, over_tls in ((0, False), (1 << 17, True))
    ]
    order = [which for which, program in enumerate(programs) for _ in program]
    random.Random(seed).shuffle(order)
    rest = [iter(program) for program in programs]
    for which in order:
        name, *args = next(rest[which])
        getattr(pairs[which], name)(*args)
        for pair in pairs:
            pair.check()
        if not any(pair.ours._unread() or pair.kept for pair in pairs):
            assert buffers.stats().bytes_in_use == 0
    for pair in pairs:
        for reading in (pair.pending or ())[:2]:
            reading.cancel()


def numbers(*ranges):
    return st.one_of(*(st.integers(low, high) for low, high in ranges))


LENGTHS = {
    "as it is": numbers((0, 300), (4000, 4200), (16000, 17000), (60_000, 70_000), (120_000, 300_000)),
    "small": numbers((0, 10), (0, 200)),
}
LIMITS = {
    "as it is": st.sampled_from([1, 5, 1000, 64 * 1024, 1 << 20]),
    "small": st.sampled_from([1, 2, 5, 20, 100, 1000]),
}


@pytest.mark.parametrize("sizes", LENGTHS)
def test_any_program_gives_what_asyncios_reader_gives(aiopool, loop, sizes):
    check_any_program(aiopool, loop, sizes, aiopool.streams.StreamReader, 100)


def check_any_program(aiopool, loop, sizes, reader_class, examples):
    @settings(deadline=None, max_examples=examples, derandomize=True, database=None)
    @given(st.tuples(programs(LENGTHS[sizes]), programs(LENGTHS[sizes])), LIMITS[sizes], st.integers(0, 1000))
    def check(programs, limit, seed):
        buffers = aiopool.BufferPool(min_size=8, max_size=1 << 20)
        run(reader_class, buffers, loop, programs, limit, seed)

    with pytest.MonkeyPatch.context() as patch:
        if sizes == "small":
            shrink(patch, aiopool)
        check()
