"""Each loop has at most one timer, and none while nothing is idle."""

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from math import inf

import anyio
import pytest
import trio.testing
from interrupts import Interrupted, core_files, raise_in_every_gap_on_a_loop
from loops import PATIENCE, RunsAtOnce, in_thread, loop_thread
from shared import Thing


def timers_of(loop):
    """The timers of the loop that are not cancelled."""
    return [handle for handle in loop._scheduled if not handle.cancelled()]


async def settle(aiopool):
    """Let posted callbacks run, and retired objects be freed."""
    while aiopool._core.freeing._queue:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)


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


def test_timers_do_not_accumulate(alone, monkeypatch):
    """A pool with a timeout of 60 s and one of 5 s, for an hour of a clock that the test advances."""
    now = alone._core.timers.monotonic()
    for module in ("store", "cleanup", "timers", "freeing"):
        if hasattr(getattr(alone._core, module), "monotonic"):
            monkeypatch.setattr(getattr(alone._core, module), "monotonic", lambda: now)
    if alone.implementation == "native":
        pytest.skip("the C extension reads the clock itself")

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


def test_a_shorter_timeout_brings_the_timer_forward(alone):
    async def main():
        slow, fast = alone.Pool(idle_timeout=600), alone.Pool(idle_timeout=0.01)
        slow.put(Thing())
        processor = alone.current_processor()
        await settle(alone)
        fast.put(Thing())
        async with asyncio.timeout(PATIENCE):
            while fast.stats().idle:
                await asyncio.sleep(0.005)
        assert slow.stats().idle == 1
        # The loop goes on, so a timer that fired or was cancelled does not take away its processor.
        assert processor.thread_id == threading.get_ident()

    asyncio.run(main())


def test_a_timer_that_is_kept_for_later_duties_is_cancelled_with_the_last(alone):
    """It is due for an earlier pool, which is empty by now; still, the loop is known to have it."""

    async def main():
        early, late = alone.Pool(idle_timeout=60), alone.Pool(idle_timeout=600)
        for pool in early, late:
            pool.put(Thing())
            await settle(alone)
        for pool, left in (early, 1), (late, 0):
            pool.clear()
            await settle(alone)
            assert len(timers_of(asyncio.get_running_loop())) == left
        assert alone._core.processor.pinned.get().thread_id == threading.get_ident()

    asyncio.run(main())


@pytest.mark.parametrize("odd", [0, 1])
def test_a_loop_with_its_own_clock_is_passed_over(alone, monkeypatch, odd):
    class OwnClock(RunsAtOnce):
        def keeps_real_time(self):
            return False

    with loop_thread() as one, loop_thread() as other:
        processors = [loop.call(alone.current_processor) for loop in (one, other)]
        monkeypatch.setattr(processors[odd], "loop", OwnClock(processors[odd].loop))
        pool = alone.Pool(idle_timeout=60)
        pool.put(Thing())
        assert [each.wakes_at < inf for each in processors] == [odd == 1, odd == 0]


def test_off_loop_code_sets_one_timer_only(alone):
    """One is enough, because a loop's timer serves all duties."""
    with loop_thread() as one, loop_thread() as other:
        processors = [loop.call(alone.current_processor) for loop in (one, other)]
        pools = [alone.Pool(idle_timeout=60) for _ in range(2)]
        for pool in pools:
            pool.put(Thing())
        assert sorted(each.wakes_at < inf for each in processors) == [False, True]


def test_an_exception_while_a_timer_is_set_reaches_the_caller(alone, monkeypatch):
    """Ctrl-C must not be lost. The next put sets the timer."""

    class Raises(RunsAtOnce):
        def call_soon(self, callback):
            raise Interrupted

    async def main():
        processor, pool, later = alone.current_processor(), alone.Pool(idle_timeout=60), alone.Pool(idle_timeout=60)
        with monkeypatch.context() as patch:
            patch.setattr(processor, "loop", Raises(processor.loop))
            with pytest.raises(Interrupted):
                pool.put(Thing())
        later.put(Thing())
        await settle(alone)
        assert len(timers_of(asyncio.get_running_loop())) == 1

    asyncio.run(main())


@pytest.mark.parametrize("bound", [False, True])
def test_a_timer_does_not_keep_the_variables_of_a_request(alone, run, bound):
    """It waits a minute, or a century, and would hold the context of the put that set it."""
    variable = contextvars.ContextVar("request")

    async def main():
        pool = alone.Pool(Thing, loop_bound=bound)

        def handle():
            variable.set(request := Thing())
            pool.put(pool.get())
            return weakref.ref(request)

        ref = contextvars.Context().run(handle)
        await anyio.sleep(0.01)  # posted callbacks run
        assert alone.current_processor().wakes_at < inf
        gc.collect()
        return ref() is None

    assert run(main)


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_loop_that_cannot_be_woken_is_passed_over(alone, monkeypatch, stopped):
    """The next loop watches objects that off-loop code leaves idle."""
    timers = alone._core.timers
    adjust_soon = timers._adjust_soon
    with loop_thread() as one, loop_thread() as other:
        processors = [loop.call(alone.current_processor) for loop in (one, other)]
        monkeypatch.setattr(timers, "_adjust_soon", lambda each, loop: each is running and adjust_soon(each, loop))
        asleep, running = processors[stopped], processors[1 - stopped]
        pool = alone.Pool(idle_timeout=60)
        pool.put(Thing())
        assert asleep.wakes_at == inf
        assert running.wakes_at < inf


@pytest.mark.parametrize("bound", [False, True])
def test_clear_and_aclose_leave_no_timer(alone, bound):
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
            # The loop also has timers that hold loop-bound objects and never fire.
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
    """The loop has found nothing idle, and is about to drop its timer, when an off-loop put relies on that timer."""
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
            patch.setattr(timers, "adjust_all", lambda: None)  # otherwise the loop would check several times
            pool.clear()
            await settle(alone)
        monkeypatch.setattr(timers, "next_due", put_after_the_look)
        timers._adjust(processor, processor.loop)
        assert timers.next_due is next_due
        await settle(alone)
        assert other.stats().idle == 1
        assert len(timers_of(loop)) == 1

    asyncio.run(main())


# An exception in the finalizer of a dropped timer is reported as unraisable.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python removes a trace function that raises")
@pytest.mark.parametrize("operation", ["fire", "set"])
def test_after_an_exception_anywhere_the_next_object_is_dropped_in_time(reference, monkeypatch, operation):
    """With only one loop, and only one further put."""
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

    assert raise_in_every_gap_on_a_loop(set_up, files=core_files("timers", "posted")) > 50


# --- loops with their own clock ---


class VirtualTime(asyncio.SelectorEventLoop):
    """A loop that does not wait for its timers: its clock jumps to the next one."""

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
    """Wait 0.05 s of real time with an idle pool. Returns the virtual clock, and how many iterations the loop ran."""
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
            pytest.skip("a timer of a century would hold loop-bound objects")
        monkeypatch.setattr(aiopool._core.loops.AsyncioLoop, "keeps_real_time", lambda self: True)
    pool = aiopool.Pool(Thing, loop_bound=bound)
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        moved, turns = runner.run(wait_for_another_thread(pool))
    # A hidden clock is noticed when the timer fires early, and then there is no second timer.
    assert (moved > 0) == hidden
    assert turns < 20


def test_a_virtual_clock_holds_loop_bound_objects_as_long_as_its_loop_lives(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)

    async def main():
        with pool.borrow() as thing:
            pass
        await settle(aiopool)
        with pool.borrow() as again:
            return again is thing

    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        assert runner.run(main())


@pytest.mark.parametrize("threshold", [0, 0.01])
@pytest.mark.parametrize("bound", [False, True])
def test_an_idle_pool_does_not_make_a_mock_clock_jump(aiopool, bound, threshold):
    pool = aiopool.Pool(Thing, loop_bound=bound)

    async def main():
        with pool.borrow():
            pass
        start = trio.current_time()
        # As the clock sees it, all tasks wait.
        await trio.to_thread.run_sync(threading.Event().wait, 0.05)
        return trio.current_time() - start

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=threshold)) == 0
