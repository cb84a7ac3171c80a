"""One timer for each loop at most, and none when nothing is idle."""

import asyncio
import sys
import threading

import pytest
import trio.testing
from interrupts import raise_in_every_gap_on_a_loop
from loops import PATIENCE, RunsAtOnce, in_thread
from shared import Thing, no_other_pools


def timers_of(loop):
    """The loop's timers that will fire."""
    return [handle for handle in loop._scheduled if not handle.cancelled()]


async def settle(aiopool):
    """Let what was posted to the loop run, and what is retired be freed."""
    while aiopool._core.freeing._queue:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def alone(aiopool):
    """No other pool has anything idle."""
    with no_other_pools(aiopool):
        yield aiopool


def test_a_loop_has_one_timer_for_all_pools(alone):
    async def main():
        loop = asyncio.get_running_loop()
        pools = [alone.Pool(Thing, idle_timeout=seconds) for seconds in (60, 5, 30, 1, 600)]
        for _ in range(3):
            for pool in pools:
                pool.put(Thing())
                await settle(alone)
                assert len(timers_of(loop)) == 1
            alone.cleanup()
        await settle(alone)
        assert len(timers_of(loop)) == 1

    asyncio.run(main())


def test_timers_do_not_gather(alone, monkeypatch):
    """A pool of 60 s beside one of 5 s, for an hour of a clock that the test moves."""
    now = alone._core.timers.monotonic()
    for module in ("store", "cleanup", "timers", "freeing"):
        if hasattr(getattr(alone._core, module), "monotonic"):
            monkeypatch.setattr(getattr(alone._core, module), "monotonic", lambda: now)
    if alone.implementation == "native":
        pytest.skip("the C extension has a clock of its own")

    async def main():
        nonlocal now
        loop = asyncio.get_running_loop()
        slow, fast = alone.Pool(idle_timeout=60), alone.Pool(idle_timeout=5)
        for _ in range(720):
            slow.put(Thing())
            fast.put(Thing())
            await settle(alone)
            now += 5
            processor = alone.current_processor()
            if processor.timer is not None and processor.timer.due <= now:
                timer = processor.timer
                timer._cancel()
                timer.fire()
            await settle(alone)
            assert len(timers_of(loop)) <= 1
        assert fast.stats().cycles > 300

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:Buffers are not reused on Python 3.11:RuntimeWarning")
@pytest.mark.parametrize("bound", [False, True])
def test_after_clear_and_aclose_there_is_none(alone, bound):
    async def main():
        loop = asyncio.get_running_loop()
        pool, connections = alone.Pool(Thing, loop_bound=bound), alone.AsyncPool(Thing, loop_bound=bound)
        buffers = alone.BufferPool()
        holding = 0
        for _ in range(2):
            pool.put(pool.get())
            await connections.put(await connections.get())
            buffers.acquire(100)
            await settle(alone)
            # What a loop holds for loop-bound objects lies beside its timers, and never fires.
            never = loop.time() + 1e6
            assert len([timer for timer in timers_of(loop) if timer.when() < never]) == 1
            holding = len(timers_of(loop)) - 1
            pool.clear()
            buffers.clear()
            await connections.clear()
            await settle(alone)
            assert len(timers_of(loop)) == holding
        await connections.put(await connections.get())
        await connections.aclose()
        await settle(alone)
        assert len(timers_of(loop)) == holding

    asyncio.run(main())


def test_what_another_thread_put_while_a_loop_looked_is_not_forgotten(alone, monkeypatch):
    """The loop has found nothing idle, and is about to let go of its timer, when an off-loop put relies on that."""
    timers = alone._core.timers
    next_due = timers.next_due
    pool, other = alone.Pool(Thing), alone.Pool(Thing)

    def put_after_the_look():
        due = next_due()
        monkeypatch.setattr(timers, "next_due", next_due)
        in_thread(other.put, Thing())
        return due

    async def main():
        loop, processor = asyncio.get_running_loop(), alone.current_processor()
        pool.put(Thing())
        await settle(alone)
        assert len(timers_of(loop)) == 1
        with monkeypatch.context() as patch:
            patch.setattr(timers, "adjust_all", lambda: None)  # else the loop would look several times
            pool.clear()
            await settle(alone)
        monkeypatch.setattr(timers, "next_due", put_after_the_look)
        timers._adjust(processor, processor.loop)
        assert timers.next_due is next_due
        await settle(alone)
        assert other.stats().idle == 1
        assert len(timers_of(loop)) == 1

    asyncio.run(main())


# What is raised in a finalizer, of a timer that is dropped, can be told only there.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="there a trace function that raises is removed")
@pytest.mark.parametrize("operation", ["fire", "set"])
def test_after_an_exception_in_any_gap_what_is_put_next_goes_in_time(reference, monkeypatch, operation):
    """On the one loop there is, with no more than one put."""
    monkeypatch.setattr(reference._core.registry, "_pools", {})

    def set_up():
        pool, later = reference.Pool(idle_timeout=0.002), reference.Pool(idle_timeout=0.003)

        async def operate():
            pool.put(Thing())
            await asyncio.sleep(0)
            timer = reference.current_processor().timer
            if operation == "fire" and timer is not None:
                timer._cancel()
                asyncio.get_running_loop().call_soon(reference._core.timers._Firing(timer))
                del timer
                await asyncio.sleep(0)

        async def put_once_more():
            later.put(Thing())
            async with asyncio.timeout(PATIENCE):
                while later.stats().idle:
                    await asyncio.sleep(0)

        return operate, put_once_more

    assert raise_in_every_gap_on_a_loop(set_up, files=("/_core/timers", "\\_core\\timers")) > 50


# --- loops with a clock of their own ---


class VirtualTime(asyncio.SelectorEventLoop):
    """A loop that does not wait for its timers: its clock jumps to the next."""

    def __init__(self):
        self.now = 0.0
        self.turns = 0
        super().__init__()

    def time(self):
        return self.now

    def _run_once(self):
        self.turns += 1
        if self._scheduled and not self._ready:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()


async def wait_for_another_thread(pool):
    """How far a virtual clock moved, and how many turns the loop took, while an idle pool waits for the real world."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    with pool.borrow():
        pass
    before = loop.turns
    threading.Timer(0.05, loop.call_soon_threadsafe, [event.set]).start()
    await event.wait()
    return loop.now, loop.turns - before


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("bound", [False, True])
def test_an_idle_pool_does_not_move_a_virtual_clock(aiopool, monkeypatch, bound, hidden):
    if hidden:
        if bound:
            pytest.skip("what holds loop-bound objects would be a timer of a century")
        monkeypatch.setattr(aiopool._core.loops.AsyncioLoop, "keeps_real_time", lambda self: True)
    pool = aiopool.Pool(Thing, loop_bound=bound)
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        moved, turns = runner.run(wait_for_another_thread(pool))
    # A loop that hides its clock is found out when the timer fires early, and gets no second one.
    assert (moved > 0) == hidden
    assert turns < 20


@pytest.mark.parametrize("threshold", [0, 0.01])
@pytest.mark.parametrize("bound", [False, True])
def test_an_idle_pool_does_not_make_a_mock_clock_jump(aiopool, bound, threshold):
    pool = aiopool.Pool(Thing, loop_bound=bound)

    async def main():
        with pool.borrow():
            pass
        start = trio.current_time()
        # All tasks wait, as far as the clock can tell.
        await trio.to_thread.run_sync(threading.Event().wait, 0.05)
        return trio.current_time() - start

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=threshold)) == 0


@pytest.mark.parametrize("set_late", [False, True], ids=["", "naive"])
def test_a_loop_that_is_faster_than_the_thread_that_posts_is_not_parked(alone, set_late, monkeypatch):
    """`naive`: what is posted is marked as waiting only when it is posted, and so for ever."""
    timers = alone._core.timers

    def post_and_mark(processor, loop):
        adjusting = timers._Adjusting(processor, loop)
        posted = adjusting.waiting = loop.call_soon(adjusting)
        return posted

    if set_late:
        monkeypatch.setattr(timers, "_adjust_soon", post_and_mark)

    async def main():
        processor = alone.current_processor()
        loop = RunsAtOnce(processor.loop)
        monkeypatch.setattr(processor, "loop", loop)
        assert timers._adjust_soon(processor, loop)
        return processor.thread_id

    assert (asyncio.run(main()) is None) == set_late
