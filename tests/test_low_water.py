"""The low-water mark of a socket: what the kernel makes of it, which all of `_low_water` rests on."""

import select
import socket
from contextlib import closing

import pytest
from loops import PATIENCE
from streaming import KIB, mark_of, reset, skip_without_marks

_known_to_work = pytest.fixture(autouse=True)(skip_without_marks)


@pytest.fixture
def pair():
    """A connection: the end that receives, and the end that sends."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sender = socket.create_connection(listening.getsockname())
        receiver, _ = listening.accept()
    with sender, receiver:
        yield receiver, sender


def is_readable(sock):
    with closing(select.epoll()) as epoll:
        epoll.register(sock, select.EPOLLIN)
        return epoll.poll(0) != []


def arrived(sock, nbytes):
    """Waits until so many bytes can be received, without taking them."""
    assert len(sock.recv(nbytes, socket.MSG_PEEK | socket.MSG_WAITALL)) == nbytes


class Transport:
    """As much of one as is looked at."""

    def __init__(self, **infos):
        self.get_extra_info = infos.get


def test_below_the_mark_nobody_is_woken(aiopool, pair):
    """So a mark above what is still to come is a hang."""
    receiver, sender = pair
    aiopool._low_water.mark_of(Transport(socket=receiver))(1000, False)
    assert mark_of(receiver) == 1000
    sender.sendall(bytes(999))
    arrived(receiver, 999)
    assert not is_readable(receiver)
    sender.sendall(b"x")
    arrived(receiver, 1000)
    assert is_readable(receiver)


def test_a_mark_that_is_lowered_counts_at_once(aiopool, pair):
    receiver, sender = pair
    set_mark = aiopool._low_water.mark_of(Transport(socket=receiver))
    set_mark(1000, False)
    sender.sendall(b"x")
    arrived(receiver, 1)
    assert not is_readable(receiver)
    set_mark(aiopool._low_water.NONE, False)
    assert is_readable(receiver)


def test_what_is_there_is_acknowledged_when_that_is_asked_for(aiopool, pair):
    """After a request the kernel puts acknowledgments off, and a sender may wait for one with the end of a message."""
    receiver, _ = pair
    set_mark = aiopool._low_water.mark_of(Transport(socket=receiver))

    def acknowledges_at_once():
        return receiver.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1

    receiver.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    set_mark(1000, False)
    assert not acknowledges_at_once()
    set_mark(1, True)
    assert acknowledges_at_once()


@pytest.mark.parametrize("end", ["shutdown", "reset", "full"])
def test_the_end_of_a_stream_counts_and_so_does_a_full_buffer(aiopool, pair, end):
    receiver, sender = pair
    if end == "full":
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * KIB)
    aiopool._low_water.mark_of(Transport(socket=receiver))(aiopool._low_water.MOST, False)
    if end == "full":
        sender.setblocking(False)
        while select.select([], [sender], [], 0)[1]:
            sender.send(bytes(64 * KIB))
    elif end == "shutdown":
        sender.shutdown(socket.SHUT_WR)
    else:
        reset(sender)
    with closing(select.epoll()) as epoll:
        epoll.register(receiver, select.EPOLLIN)
        assert epoll.poll(PATIENCE)


def test_only_plain_tcp_has_a_mark(aiopool, pair):
    receiver, _ = pair
    mark = aiopool._low_water.mark_of
    assert mark(Transport(socket=receiver, sslcontext=object())) is None
    assert mark(Transport()) is None
    with socket.socket(socket.AF_UNIX) as unix:
        assert mark(Transport(socket=unix)) is None


def test_what_cannot_be_set_says_so(aiopool, pair):
    receiver, sender = pair
    set_mark = aiopool._low_water.mark_of(Transport(socket=sender))
    sender.close()
    receiver.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        set_mark(1000, False)


@pytest.mark.parametrize(("release", "works"), [("5.12.0", True), ("6.1-x", True), ("5.4.0-42", False), ("?", False)])
def test_only_kernels_without_its_hangs_are_asked(aiopool, monkeypatch, release, works):
    monkeypatch.setattr("platform.release", lambda: release)
    assert aiopool._low_water._is_known_to_work() is works
