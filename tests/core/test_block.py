"""Each way that a view outlives its release: its bytes stay its own for as long as anybody can see them.

Reusing too early fails silently, with the right length and the wrong bytes. So each test puts a
negative control (control_buffers.py) through the same, and must see it corrupt what this pool does not.
"""

import asyncio
import gc
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from children import run_child, run_program
from control_buffers import PutByHand
from interrupts import at_every_bytecode, on_a_loop
from loops import PATIENCE, in_thread, loop_thread

KIB = 1024
MIB = 1024 * KIB

pytestmark = pytest.mark.filterwarnings("ignore:Buffers are not reused on Python 3.11:RuntimeWarning")

LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio")]
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS.append(pytest.param(uvloop.new_event_loop, id="uvloop"))


@pytest.fixture(params=["control", "ours"])
def kind(request):
    """Which kind of pool goes through the test."""
    return request.param


class Hand:
    """A pool of either kind, and what a request does with a buffer at its end."""

    def __init__(self, kind, aiopool):
        self.is_control = kind == "control"
        self.pool = PutByHand() if self.is_control else aiopool.BufferPool()
        self.acquire = self.pool.acquire

    def done(self, view):
        """The request is over, and its author believes that nobody needs the bytes any more."""
        if self.is_control:
            self.pool.give_back(view)

    def next_requests(self, n):
        """Other requests fill buffers of the same size."""
        held = [self.acquire(n) for _ in range(3)]
        for view in held:
            view[:] = b"B" * n

    def check(self, seen, corrupts=True):
        """Nobody else's bytes are among `seen`; with the negative control some are, if the test can tell."""
        assert (b"B" in seen) == (self.is_control and corrupts)


@pytest.fixture
def hand(kind, aiopool):
    """A pool of either kind."""
    return Hand(kind, aiopool)


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
        pytest.skip("what CPython puts before exporters in Python exports once")


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
def test_what_was_made_of_it(hand, make):
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
    gc.collect()  # ctypes makes a cycle
    assert hand.is_control or hand.pool.stats().bytes_in_use == 0


def test_released_by_hand_while_a_slice_lives(hand):
    """The early release gives up the view, not what was made of it."""
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
    """What the peer receives, to the end."""
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
def test_a_write_goes_on_after_write_returns(hand, send, new_loop):
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
        # Until 3.11 asyncio copied what it could not send at once.
        hand.check(received, corrupts=sys.version_info >= (3, 12) or new_loop is not asyncio.new_event_loop)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    gc.collect()
    assert hand.is_control or hand.pool.stats().bytes_in_use == 0


def test_a_cancelled_task_whose_thread_still_fills_the_buffer(hand):
    """`run_in_executor` is cancelled, but nobody can cancel the thread that fills the view."""
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
    """Error reporters look at the locals of a frame long after the frame has ended."""

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


def test_a_block_that_something_keeps(aiopool):
    """`view.obj` leads to it: nothing that can be done there lets two see the same bytes."""
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
    assert pool.stats().bytes_idle >= 0


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
    """Not even with a debugger's means."""
    if reusing.implementation == "python":
        pytest.skip("there it is a bytearray, which anybody may look at who finds it")
    pool = reusing.BufferPool()
    pool.acquire(100)
    (block,) = pool._size_classes[0].store.primary[0].shared
    with pytest.raises(BufferError, match="idle"):
        memoryview(block)


# --- garbage ---


class Observer(bytearray):
    """Looks at its view once more when it dies, after others have used the pool.

    Collectors differ in whom they finalize first, but among objects of one size they go by their age, this way or that.
    """

    def __init__(self, pool, log):
        super().__init__()
        self.pool, self.log = pool, log

    def __del__(self):
        others = [self.pool.acquire(1000) for _ in range(3)]
        for other in others:
            other[:] = b"B" * 1000
        self.log.append(bytes(self.view))


def a_cycle(pool, log):
    before = Observer(pool, log)
    view = pool.acquire(1000)
    view[:] = b"A" * 1000
    after = Observer(pool, log)
    before.view, after.view = view, view[:500]
    before.other, after.other = after, before


def seen_by_finalizers(pool, generation):
    log = []
    for _ in range(20):
        a_cycle(pool, log)
    gc.collect(generation)
    assert len(log) == 40
    return log


@pytest.mark.parametrize("generation", [0, 2])
def test_a_finalizer_in_the_same_garbage_still_sees_the_bytes(aiopool, generation):
    pool = aiopool.BufferPool()
    assert not any(b"B" in seen for seen in seen_by_finalizers(pool, generation))
    assert pool.stats().bytes_in_use == 0
    assert len(pool.acquire(1000)) == 1000


@pytest.mark.parametrize("generation", [0, 2])
def test_with_a_pool_that_puts_in_a_finalizer_it_sees_others(child_env, generation):
    assert run_program("put_by_finalizer.py", child_env, arguments=[str(generation)]) == "True\n"


def test_a_finalizer_may_bring_a_view_back(aiopool):
    pool = aiopool.BufferPool()
    kept = []

    class Saver:
        def __del__(self):
            kept.append(self.view)

    saver = Saver()
    saver.itself, saver.view = saver, pool.acquire(1000)
    saver.view[:] = b"A" * 1000
    del saver
    gc.collect()
    held = [pool.acquire(1000) for _ in range(3)]
    for each in held:
        each[:] = b"B" * 1000
    assert bytes(kept[0]) == b"A" * 1000
    del each
    held.clear()
    kept.clear()
    gc.collect()
    assert pool.stats().bytes_idle <= 4 * KIB
    for _ in range(3):
        for each in [pool.acquire(1000) for _ in range(5)]:
            each[:] = b"C" * 1000


@pytest.mark.parametrize("wipe", [False, True], ids=["as it is", "wiping"])
def test_a_view_in_a_cycle_comes_back(reusing, wipe):
    """Among what the collector empties is also the inner view that CPython puts between an exporter and its views."""
    pool = reusing.BufferPool(wipe=wipe)
    for turn in range(10):
        for count in (1, 3):
            cycle = [pool.acquire(1000) for _ in range(count)]
            cycle += [cycle, *(view[:] for view in cycle)]
            assert not (wipe and any(map(any, cycle[:count])))
            for view in cycle[:count]:
                view[:] = bytes([turn]) * 1000
            del cycle, view
            assert pool.stats().bytes_in_use == count * KIB
            gc.collect(0)
            assert pool.stats().bytes_in_use == 0
    assert pool.stats().served == 40
    assert pool.stats().created < 40


def test_pool_and_views_in_one_cycle(aiopool):
    class App:
        def __init__(self):
            self.itself = self
            self.pool = aiopool.BufferPool()
            self.views = [self.pool.acquire(n) for n in (10, 5000, 100, 17 * MIB)]
            self.pool.acquire(10)

        def __del__(self):
            for view in self.views:
                view[0] = 1
                self.views = [*self.views, self.pool.acquire(10)]
            log.append(self.pool.stats().bytes_in_use)

    log = []
    for _ in range(3):
        App()
    gc.collect()
    assert len(log) == 3


def test_what_a_dying_exception_held(reusing):
    """The last view goes while its thread is in the middle of raising; the exception arrives as it was."""
    pool = reusing.BufferPool()

    def fail(view):
        raise LookupError(len(view))

    async def main():
        for n in (10, 5000):
            with pytest.raises(LookupError, match=str(n)):
                fail(pool.acquire(n))

    asyncio.run(main())
    in_thread(asyncio.run, main())


def test_dropped_by_c_code_that_is_raising(reusing):
    """`list.sort` frees what its key function made, with the exception set."""
    pool = reusing.BufferPool()
    turns = iter(range(10))

    def key(item):
        if next(turns) == 5:
            raise LookupError
        return pool.acquire(10)

    for run in (lambda work: work(), on_a_loop):
        turns = iter(range(10))
        with pytest.raises(LookupError):
            run(lambda: sorted(range(10), key=key))
        assert (pool.stats().bytes_in_use, pool.stats().bytes_idle) == (0, 5 * KIB)


# --- threads that end ---


def test_a_view_in_thread_local_storage(reusing):
    pool = reusing.BufferPool()
    local = threading.local()

    async def on_loop():
        keep()

    def keep():
        local.view = pool.acquire(1000)
        local.view[:] = b"A" * 1000

    for run in (keep, lambda: asyncio.run(on_loop())):
        for _ in range(3):
            in_thread(run)
    gc.collect()
    assert (pool.stats().bytes_in_use, pool.stats().bytes_idle) == (0, pool.stats().created * KIB)
    assert pool.acquire(1000)[0] == ord("A")


def test_dropped_in_each_kind_of_thread(reusing):
    pool = reusing.BufferPool()

    def box():
        return [pool.acquire(1000)]

    with loop_thread() as one, loop_thread() as two:
        boxes = [maker(box) for maker in (one.call, two.call, in_thread) for _ in range(3)]
        for index, dropper in enumerate((two.call, in_thread, one.call) * 3):
            dropper(boxes[index].clear)
        stats = pool.stats()
    assert (stats.bytes_in_use, stats.bytes_idle) == (0, stats.created * KIB)


# --- the end of the interpreter ---

EXITS = {
    "globals": """
view = pool.acquire(1000)
part = pool.acquire(20_000)[5:]
held = {name: pool.acquire(10) for name in "abc"}
""",
    "globals, pool first": """
import builtins
builtins.view = pool.acquire(1000)
builtins.more = [pool.acquire(1000), pool.acquire(17 << 20)]
del pool
""",
    "a loop's views": """
async def main():
    global view
    view = pool.acquire(1000)
    pool.acquire(1000)
    sys.modules["sys"].kept = pool.acquire(1000)
asyncio.run(main())
""",
    "cycles": """
class Node: pass
for n in (10, 1000, 100_000):
    node = Node(); node.me = node; node.view = pool.acquire(n); node.pool = pool
""",
    "atexit": """
import atexit
early = []
def at_the_end(when):
    for n in (10, 1000, 20_000, 17 << 20):
        view = pool.acquire(n)
        view[:2] = b"ok"
        early.append(view[:2])
    assert all(bytes(view) == b"ok" for view in early)
    if when == "first":
        early.clear()
atexit.register(at_the_end, "last")
""",
    "finalizers": """
class Late:
    def __init__(self):
        self.view = pool.acquire(1000)
        self.acquire = pool.acquire
    def __del__(self):
        try:
            view = self.acquire(5)
        except (TypeError, AttributeError, NameError):  # the Python of it may be gone already
            pass
        else:
            view[:] = b"later"
            del view
        self.view[0] = 1
        del self.view
late = Late()
late_cycle = Late(); late_cycle.me = late_cycle
sys.late = Late()
""",
    "daemon threads": """
import threading
started = threading.Barrier(3)
def churn():
    started.wait()
    while True:
        held = [pool.acquire(n) for n in (10, 1000, 20_000)]
async def churn_on_loop():
    started.wait()
    while True:
        held = [pool.acquire(n) for n in (10, 1000, 20_000)]
        held.clear()
        await asyncio.sleep(0)
threading.Thread(target=churn, daemon=True).start()
threading.Thread(target=asyncio.run, args=(churn_on_loop(),), daemon=True).start()
started.wait()
""",
    "a generator": """
def generate():
    with pool.acquire(1000) as view:
        yield view
        while True:
            yield view[1:]
generator = generate()
next(generator)
view = next(generator)
async def agenerate():
    with pool.acquire(1000) as view:
        yield view
agen = agenerate()
""",
    "wiping": """
secret = aiopool.BufferPool(wipe=True)
view = secret.acquire(1000)
cycle = [secret.acquire(10), secret.acquire(17 << 20)]
cycle.append(cycle)
""",
}


@pytest.mark.parametrize("name", EXITS)
def test_views_at_interpreter_shutdown(aiopool, child_env, name):
    program = (
        'import warnings; warnings.filterwarnings("ignore", "Buffers are not reused")\n'
        'import logging; logging.getLogger("asyncio").setLevel("ERROR")\n'  # what it says of callbacks that took long
        "import asyncio, sys, aiopool\npool = aiopool.BufferPool()\npool.acquire(10)\n" + EXITS[name] + '\nprint("ok")'
    )
    assert run_child(program, child_env, options=["-X", "dev", "-W", "error"]) == "ok\n"


@pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="with a GIL of their own since 3.12, which crashes by itself once two of them import asyncio",
)
def test_views_at_the_end_of_an_interpreter_of_several(aiopool, child_env):
    assert run_program("buffer_interpreters.py", child_env) == "ok\n"


# --- in the middle of it ---


def fill(pool, mark, count):
    """Views from `pool`, full of `mark`."""
    views = [pool.acquire(1000) for _ in range(count)]
    for view in views:
        view[:] = mark * 1000
    return views


INTERRUPTED = tuple(f"_core{os.sep}{name}.py" for name in ("block", "idle_budget", "shard", "size_class", "store"))
INTERRUPTED += ("_buffer_pool.py",)

INTRUSIONS = {
    "acquire and drop": lambda package, pool: fill(pool, b"B", 2).clear(),
    "acquire and keep": lambda package, pool: fill(pool, b"B", 2),
    "clean up": lambda package, pool: [package.cleanup(), package.cleanup()].clear(),
    "clear": lambda package, pool: [pool.clear()].clear(),
}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python code cannot export buffers before 3.12")
@pytest.mark.parametrize("intrusion", INTRUSIONS)
@pytest.mark.parametrize("operation", ["first", "acquire", "drop"])
def test_something_at_every_bytecode(reference, operation, intrusion):
    """A finalizer or another thread uses the pool between any two bytecodes of an acquire and of a drop."""

    def scenario():
        pool = reference.BufferPool(max_idle_bytes=4 * KIB, wipe=intrusion == "acquire and drop")
        if operation != "first":
            pool.acquire(1000)
        box = fill(pool, b"A", 1) if operation == "drop" else []

        def operate():
            return box.pop().release() if box else fill(pool, b"A", 1)

        def check(mine, others):
            third = fill(pool, b"C", 4)
            for views, mark in (mine, b"A"), (others, b"B"), (third, b"C"):
                assert all(bytes(view) == mark * 1000 for view in views or [])
            assert sum(len(shard) for shard in pool._size_classes[0].store.primary.values()) <= 4

        return operate, lambda: INTRUSIONS[intrusion](reference, pool), check

    interruptions = at_every_bytecode(scenario, files=INTERRUPTED)
    assert interruptions > 50


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python code cannot export buffers before 3.12")
def test_something_at_every_bytecode_is_too_much_for_an_exporter_that_puts_first(reference, monkeypatch):
    """A negative control: it puts first and wipes then."""

    def put_first(self, view):
        content, known, n, _ = self
        if (size_class := known()) is not None:
            size_class.take_back(content)
        view[:] = bytes(n)
        view.release()

    monkeypatch.setattr(reference._core.block._Exporter, "__release_buffer__", put_first)
    with pytest.raises(AssertionError):
        test_something_at_every_bytecode(reference, "drop", "acquire and keep")
