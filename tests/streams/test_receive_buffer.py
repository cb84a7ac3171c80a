"""The receive buffer by itself: bytes in several chunks, and what it holds."""

import array
import ctypes
import gc
import os
import sys

import pytest
from shared import NO_GIL


@pytest.fixture
def buffers(reusing):
    return reusing.BufferPool()


@pytest.fixture
def received(reusing, buffers):
    return reusing.streams._receive_buffer.ReceiveBuffer(buffers)


@pytest.fixture
def first(reusing):
    """The size of the first chunk."""
    return reusing.streams._receive_buffer.FIRST


def receive(received, data):
    """Receive `data` as a transport does, into as many chunks as it takes."""
    while data:
        room = received.room()
        room[: len(data)] = data[: len(room)]
        received.received(min(len(data), len(room)))
        data = data[len(room) :]


@pytest.mark.parametrize("taken", ["take", "take_bytes"])
@pytest.mark.parametrize("beyond", [0, 1, 2, 10])
def test_bytes_that_span_two_chunks_are_taken_whole(received, first, taken, beyond):
    data = os.urandom(first + 10)
    receive(received, data)
    assert received.in_a_row() == first
    assert getattr(received, taken)(first + beyond) == data[: first + beyond]
    assert received.peek() == data[first + beyond :]
    assert received.unread == 10 - beyond


def test_taking_bytes_ends_the_wait_for_more(received):
    received.needed = 20
    receive(received, bytes(10))
    received.take(3)
    assert received.needed == 0


def test_of_separators_that_end_together_the_shortest_is_found(received):
    receive(received, b"a-=")
    assert received.find([b"=", b"-="], 0) == (2, 3)


def test_the_longest_of_several_separators_is_found_across_two_chunks(received, first):
    receive(received, bytes(first - 2) + b"abc")
    assert received.find([b"z", b"abc"], 0) == (first - 2, first + 1)


def test_few_bytes_in_a_large_chunk_and_the_next_are_set_aside_together(received, buffers):
    large = 200_000
    received.needed = large
    chunk = len(received.room())
    data = os.urandom(chunk + 10)
    receive(received, data)
    received.skip(chunk - 10)
    received.hold_little()
    assert buffers.stats().bytes_in_use == 0
    assert received.unread == 20
    assert received.take(20) == data[-20:]


def test_a_chunk_that_received_nothing_is_dropped_with_the_last_byte(received, buffers, first):
    """A transport of uvloop asks for room before it knows that there is no more."""
    receive(received, bytes(first))
    received.room()
    received.take(first)
    assert buffers.stats().bytes_in_use == 0


@pytest.mark.skipif(not NO_GIL, reason="with a GIL, views may share a managed buffer")
@pytest.mark.parametrize("n", [100, 4096, 6000])
def test_a_result_shares_no_managed_buffer_with_the_chunk_or_another_result(received, n):
    """CPython does not count the views of one atomically, and results are sliced and dropped in other threads."""
    room = received.room()
    received.received(2 * n + 1)  # so that the next room is in the same chunk
    one, two = received.take(n), received.take(n)
    assert len(one) == len(two) == n
    managed = [gc.get_referents(view) for view in (room, one, two, received.room())]
    assert managed[1] != managed[2]
    assert managed[1] not in (managed[0], managed[3])
    assert managed[2] not in (managed[0], managed[3])


class Exporter:
    """Python code that exports bytes, which CPython wraps in an object that exports nothing by itself."""

    def __init__(self, n):
        self._bytes = bytearray(n)

    def __buffer__(self, flags):
        return memoryview(self._bytes)


MEMORY = ctypes.create_string_buffer(64 * 1024)


def view_without_exporter(n):
    """A view of memory that nothing keeps alive."""
    prototype = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
    writable = 0x200
    return prototype(("PyMemoryView_FromMemory", ctypes.pythonapi))(ctypes.addressof(MEMORY), n, writable)


EXPORTERS = {
    "ctypes": lambda n: memoryview((ctypes.c_char * n)()).cast("B"),
    "array": lambda n: memoryview(array.array("b", bytes(n))).cast("B"),
    "nothing": view_without_exporter,
    "Python": lambda n: memoryview(Exporter(n)),
}


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_results_are_right_whatever_exports_the_chunks_of_a_subclass(reusing, exporter):
    if exporter == "Python" and sys.version_info < (3, 12):
        pytest.skip("Python code cannot export buffers before 3.12")

    class Other(reusing.BufferPool):
        def acquire(self, n, /):
            return EXPORTERS[exporter](n)

    received = reusing.streams._receive_buffer.ReceiveBuffer(Other())
    data = bytes(range(256)) * 24
    receive(received, data)
    half = len(data) // 2
    views = [received.take(half), received.take(half)]
    assert views == [data[:half], data[half:]]
    assert (views[0].format, views[0][200]) == ("B", 200)
