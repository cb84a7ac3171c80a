"""A read that finds too little receives from the socket without waiting, within bounds. The kernel is simulated."""

import pytest
from feeding import Pausable, Reading, feed, read_now


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
