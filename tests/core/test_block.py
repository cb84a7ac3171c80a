"""Each way that a view outlives its request: its bytes do not change as long as anything refers to them.

Reusing a block too early fails silently, with the right length and the wrong bytes. So each test also runs a negative
control (control_buffers.py), and must see it corrupt bytes that aiopool's pool does not.
"""

import asyncio
import gc
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from control_buffers import PutByHand
from loops import PATIENCE
from shared import MIB

LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio")]
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS.append(pytest.param(uvloop.new_event_loop, id="uvloop"))


@pytest.fixture(params=["control", "ours"])
def kind(request):
    """The kind of pool to test."""
    return request.param


class AnyPool:
    """A pool of either kind, and what a request does with its buffer at its end."""

    def __init__(self, kind, aiopool):
        self.is_control = kind == "control"
        self.pool = PutByHand() if self.is_control else aiopool.BufferPool()
        self.acquire = self.pool.acquire

    def done(self, view):
        """The request ends, and its author believes that the bytes are no longer needed."""
        if self.is_control:
            self.pool.give_back(view)

    def next_requests(self, n):
        """Other requests fill buffers of the same size."""
        held = [self.acquire(n) for _ in range(3)]
        for view in held:
            view[:] = b"B" * n

    def check(self, seen, corrupts=True):
        """Check that `seen` has no bytes of other requests; with the negative control it must have some."""
        assert (b"B" in seen) == (self.is_control and corrupts)


@pytest.fixture
def hand(kind, aiopool):
    """A pool of either kind."""
    return AnyPool(kind, aiopool)


def a_slice(view):
    return view[1000:2000]


def a_strided_slice(view):
    return view[::7]


def a_cast(view):
    return view.cast("Q")


def a_matrix(view):
    return view.cast("B", (64, 64))


def read_only(view):
    return view.toreadonly()


def a_view_of_it(view):
    return memoryview(view)


def a_view_of_its_object(view):
    try:
        return memoryview(view.obj)
    except TypeError:
        pytest.skip("CPython's wrapper of a Python exporter exports only once")


def an_array(view):
    return pytest.importorskip("numpy").frombuffer(view, "u4")


def an_array_of_an_array(view):
    return pytest.importorskip("numpy").asarray(view).reshape(64, 64).T[3:5]


def a_ctypes_array(view):
    import ctypes

    return (ctypes.c_char * 100).from_buffer(view, 3)


@pytest.mark.parametrize(
    "make",
    [
        a_slice,
        a_strided_slice,
        a_cast,
        a_matrix,
        read_only,
        a_view_of_it,
        a_view_of_its_object,
        an_array,
        an_array_of_an_array,
        a_ctypes_array,
    ],
)
def test_objects_made_from_a_view(hand, make):
    def request():
        view = hand.acquire(4096)
        view[:] = b"A" * 4096
        made = make(view)
        hand.done(view)
        return made

    made = request()
    hand.next_requests(4096)
    hand.check(bytes(made))
    del made
    gc.collect()  # ctypes creates a cycle
    assert hand.is_control or hand.pool.stats().bytes_in_use == 0


def test_released_by_hand_while_a_slice_lives(hand):
    """An early release ends the view, but not the slice."""
    with hand.acquire(4096) as view:
        view[:] = b"A" * 4096
        part = view[:10]
        hand.done(view)
    hand.next_requests(4096)
    hand.check(bytes(part))


def tcp_pair():
    """Two connected sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    near.setblocking(False)
    return near, far


def read_all(far):
    """Everything that the peer receives."""
    with far:
        far.settimeout(PATIENCE)
        return b"".join(iter(lambda: far.recv(1 << 20), b""))


async def through_a_transport(near, view):
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    transport.write(view)
    return transport


async def through_a_stream_writer(near, view):
    _, writer = await asyncio.open_connection(sock=near)
    writer.write(view)
    return writer


async def in_lines(near, view):
    _, writer = await asyncio.open_connection(sock=near)
    writer.writelines([view[: 4 * MIB], view[4 * MIB :]])
    return writer


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("send", [through_a_transport, through_a_stream_writer, in_lines])
def test_a_write_continues_after_write_returns(hand, send, new_loop):
    size = 8 * MIB
    near, far = tcp_pair()

    async def respond():
        view = hand.acquire(size)
        view[:] = b"A" * size
        sender = await send(near, view)
        hand.done(view)
        return sender

    async def main():
        sender = await respond()
        hand.next_requests(size)
        # Only now does the peer begin to read.
        reading = asyncio.get_running_loop().run_in_executor(None, read_all, far)
        sender.close()
        received = await reading
        assert len(received) == size
        # Up to 3.11, asyncio copied the bytes that it could not send at once.
        hand.check(received, corrupts=sys.version_info >= (3, 12) or new_loop is not asyncio.new_event_loop)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    gc.collect()
    assert hand.is_control or hand.pool.stats().bytes_in_use == 0


def test_a_cancelled_task_whose_thread_still_fills_the_buffer(hand):
    """`run_in_executor` is cancelled, but the thread that fills the view cannot be."""
    may_write, written = threading.Event(), threading.Event()

    def fill(view):
        may_write.wait(PATIENCE)
        view[:] = b"B" * len(view)
        written.set()

    async def request(executor):
        view = hand.acquire(4096)
        try:
            await asyncio.get_running_loop().run_in_executor(executor, fill, view)
        finally:
            hand.done(view)

    async def main():
        with ThreadPoolExecutor(1) as executor:
            task = asyncio.create_task(request(executor))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            mine = hand.acquire(4096)
            mine[:] = b"A" * 4096
            may_write.set()
            written.wait(PATIENCE)
            hand.check(bytes(mine))

    asyncio.run(main())


def test_a_cancelled_task_that_is_still_referenced(hand):
    async def request(ready):
        view = hand.acquire(4096)
        view[:] = b"A" * 4096
        try:
            ready.set()
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            hand.done(view)
            return view
        finally:
            del view

    async def main():
        ready = asyncio.Event()
        task = asyncio.create_task(request(ready))
        await ready.wait()
        task.cancel()
        await asyncio.wait([task])
        hand.next_requests(4096)
        hand.check(bytes(task.result()))

    asyncio.run(main())


def test_a_traceback(hand):
    """Error reporters read the local variables of a frame long after it has ended."""

    def request():
        view = hand.acquire(4096)
        view[:] = b"A" * 4096
        try:
            raise LookupError
        finally:
            hand.done(view)

    with pytest.raises(LookupError) as info:
        request()
    hand.next_requests(4096)
    frame = info.value.__traceback__.tb_next.tb_frame
    hand.check(bytes(frame.f_locals["view"]))
    del frame, info
    gc.collect()
    assert hand.is_control or hand.pool.stats().bytes_in_use == 0


def test_another_thread(hand):
    may_look = threading.Event()

    def look(view):
        may_look.wait(PATIENCE)
        return bytes(view)

    with ThreadPoolExecutor(1) as executor:
        view = hand.acquire(4096)
        view[:] = b"A" * 4096
        looking = executor.submit(look, view[10:20])
        hand.done(view)
        del view
        hand.next_requests(4096)
        may_look.set()
        hand.check(looking.result(PATIENCE))


@pytest.mark.parametrize("pool_lives", [True, False], ids=["", "without its pool"])
def test_an_array_that_keeps_an_address_and_no_view(aiopool, pool_lives):
    """`numpy.ndarray` releases its buffer at once, and keeps `view.obj`."""
    pool = aiopool.BufferPool(max_size=8192)
    view = pool.acquire(8192)
    view[:] = b"A" * 8192
    array = pytest.importorskip("numpy").ndarray((8192,), "u1", buffer=view)
    stats = pool.stats
    if not pool_lives:
        del pool, stats
    del view
    others = [bytearray(b"B" * 8192) for _ in range(10)]
    if pool_lives:
        for _ in range(3):
            others += [pool.acquire(8192)]
            others[-1][:] = b"B" * 8192
    gc.collect()
    assert bytes(array) == b"A" * 8192
    del others, array
    gc.collect()
    if pool_lives:
        assert stats().bytes_in_use == 0


def test_a_block_that_is_still_referenced(aiopool):
    """`view.obj` refers to it, but no use of it lets two requests see the same bytes."""
    pool = aiopool.BufferPool()
    view = pool.acquire(1000)
    view[:] = b"A" * 1000
    kept = view.obj
    view.release()

    def use_others():
        held = [pool.acquire(1000) for _ in range(3)]
        for each in held:
            each[:] = b"B" * 1000
        return held

    use_others()
    for trick in TRICKS:
        try:
            trick(kept)
        except (AttributeError, TypeError, ValueError, BufferError, NotImplementedError):
            pass
        others = use_others()
        assert [bytes(each) for each in others] == [b"B" * 1000] * 3, trick
        del others
    gc.collect()
    try:
        again = memoryview(kept)
    except TypeError:  # the exporter has been released, and does not export any more
        pass
    else:
        assert b"B" not in bytes(again)
        use_others()
        assert b"B" not in bytes(again)
        del again
    del kept
    gc.collect()
    assert pool.stats().bytes_in_use == 0
    assert [bytes(each) for each in use_others()] == [b"B" * 1000] * 3


def resize(block):
    block.extend(b"x" * 100_000)


def copied(block):
    import copy

    other = copy.copy(block)
    memoryview(other)[:] = b"C" * len(other)


TRICKS = [
    lambda block: block.__del__(),
    lambda block: block.leave_budget(),
    lambda block: block.give_back(None),
    lambda block: block.__release_buffer__(memoryview(b"")),
    lambda block: type(block)(),
    lambda block: type(block)(None, 10),
    lambda block: type(block).__new__(type(block)),
    lambda block: block.__init__(5),
    lambda block: block.clear(),
    lambda block: memoryview(block).release(),
    lambda block: memoryview(block).__setitem__(slice(None), b"C" * len(block)),
    lambda block: bytes(block),
    lambda block: bytearray(block).clear(),
    lambda block: memoryview(block.copy()),
    resize,
    copied,
]


def test_an_idle_block_cannot_be_exported(reusing):
    """Not even by the means that a debugger has."""
    if reusing.implementation == "python":
        pytest.skip("in Python it is a bytearray, which any code that finds it can read")
    pool = reusing.BufferPool()
    pool.acquire(100)
    (block,) = pool._size_classes[0].store.primary[0].shared
    with pytest.raises(BufferError, match="idle"):
        memoryview(block)
