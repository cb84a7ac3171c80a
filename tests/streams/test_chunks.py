"""The chunks of a receive buffer: how large each one is, and when its bytes move to another."""

import pytest
from feeding import address
from shared import KIB, NO_GIL


@pytest.fixture
def sizes(reusing):
    """The module with the sizes."""
    return reusing.streams._receive_buffer


@pytest.fixture
def buffers(reusing):
    return reusing.BufferPool()


@pytest.fixture
def received(sizes, buffers):
    return sizes.ReceiveBuffer(buffers)


def receive(received, nbytes):
    """Receive `nbytes`, for which there is room."""
    assert len(received.room()) >= nbytes
    received.received(nbytes)


def fill(received):
    """Receive as many bytes as there is room for, and return how many."""
    nbytes = len(received.room())
    received.received(nbytes)
    return nbytes


def test_each_full_chunk_makes_the_next_ones_four_times_as_large(received, sizes):
    filled = [fill(received) for _ in range(5)]
    assert filled == [sizes.FIRST, 4 * sizes.FIRST, 16 * sizes.FIRST, sizes.MOST, sizes.MOST]


@pytest.mark.parametrize("all_but", [1, 1000])
def test_a_chunk_that_is_not_full_changes_no_size(received, sizes, all_but):
    receive(received, sizes.FIRST - all_but)
    received.skip(sizes.FIRST - all_but)
    assert fill(received) == sizes.FIRST
    receive(received, 4 * sizes.FIRST - all_but)  # behind the unread bytes of the first
    received.skip(received.unread)
    assert len(received.room()) == 4 * sizes.FIRST


def test_small_results_change_no_size_and_a_large_one_starts_again(received, sizes):
    for _ in range(3):
        received.skip(fill(received))
    fill(received)
    received.take(sizes.BIG - 1)
    received.skip(received.unread)
    assert fill(received) == sizes.MOST
    received.take(sizes.BIG)
    received.skip(received.unread)
    assert len(received.room()) == sizes.FIRST


@pytest.mark.parametrize("needed", [128 * KIB, 300 * KIB])
def test_few_bytes_are_received_behind_a_large_message(received, sizes, needed):
    """They will have to be copied when the size of the next one is known."""
    for _ in range(2):
        received.skip(fill(received))
    received.needed = needed
    while received.unread < received.needed + sizes.ROOM:
        fill(received)
    assert len(received.room()) == sizes.FIRST


@pytest.mark.parametrize("needed", [200, 16 * KIB])
def test_bytes_stay_where_they_are_while_there_is_room(received, buffers, sizes, needed):
    beginning = address(received.room())
    received.received(100)
    received.needed = needed
    assert address(received.room()) == beginning + 100
    received.received(sizes.FIRST - 100 - sizes.ROOM)
    room = received.room()
    assert (len(room), address(room)) == (sizes.ROOM, beginning + sizes.FIRST - sizes.ROOM)
    assert buffers.stats().served == 1  # another chunk might have the same address


def test_a_result_is_where_its_bytes_were_received(reusing, received):
    if NO_GIL and reusing.implementation == "python":
        pytest.skip("without a GIL, results are copies in pure Python")
    beginning = address(received.room())
    received.received(3000)
    assert [address(received.take(1500)) for _ in range(2)] == [beginning, beginning + 1500]


def test_a_small_result_that_spans_two_chunks_holds_neither(received, buffers, sizes):
    fill(received)
    receive(received, 5)
    received.skip(sizes.FIRST - 5)
    result = received.take(10)
    assert len(result) == 10
    assert buffers.stats().bytes_in_use == 0


@pytest.mark.parametrize(("left", "beyond"), [(1, 0), (100, 0), (100, 50)])
def test_the_end_of_a_large_message_is_received_where_the_rest_is(received, sizes, left, beyond):
    """However little room its chunk has for it."""
    beginning = address(received.room())
    received.received(sizes.FIRST - left)
    received.needed = sizes.FIRST - beyond
    room = received.room()
    assert (len(room), address(room)) == (left, beginning + sizes.FIRST - left)


@pytest.mark.parametrize("unread", [100, 4 * KIB])
def test_little_room_is_not_used_for_a_message_that_has_hardly_begun(received, buffers, sizes, unread):
    """A receive of its own would cost more than moving the bytes that are there."""
    end = sizes.FIRST - 100
    receive(received, end)
    received.skip(end - unread)
    received.needed = unread + 50
    assert len(received.room()) >= sizes.ROOM
    assert buffers.stats().peak_in_use == sizes.FIRST


def test_a_message_that_does_not_fit_is_not_begun_in_the_little_room_of_its_chunk(received, buffers, sizes):
    end = sizes.FIRST - 300
    receive(received, end)
    received.skip(end - 6 * KIB)
    received.needed = 6 * KIB + 301
    assert len(received.room()) >= sizes.ROOM
    assert buffers.stats().peak_in_use > sizes.FIRST  # copied into the other chunk at once


@pytest.mark.parametrize(("unread", "move"), [(100, True), (4 * KIB, True), (4 * KIB + 1, False)])
def test_few_unread_bytes_move_to_the_next_chunk(received, buffers, sizes, unread, move):
    """A chunk of their own would be held for them, and a message that spans two chunks has to be copied.

    Theirs is dropped before the next is acquired, which may then be in the same memory.
    """
    end = sizes.FIRST - 100
    receive(received, end)
    received.skip(end - unread)
    receive(received, 1000)
    stats = buffers.stats()
    assert (stats.bytes_in_use < 2 * sizes.FIRST) is move
    assert stats.peak_in_use == stats.bytes_in_use
