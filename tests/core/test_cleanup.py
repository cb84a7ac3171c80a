"""When cleanup cycles come without a full collection, and what a cycle does."""

import asyncio
import contextvars
import gc
import math
import threading
import weakref

import anyio
import anyio.lowlevel
import pytest
from loops import PATIENCE, all_freed, loop_thread
from shared import Thing, no_other_pools

pytestmark = pytest.mark.anyio


# --- idle time ---


async def test_idle_objects_are_dropped_while_the_program_is_idle(aiopool):
    """With the garbage collector disabled, on every kind of loop."""
    pool = aiopool.Pool(idle_timeout=0.02)
    kept = aiopool.Pool(idle_timeout=None)
    for _ in range(10):
        pool.put(Thing())
        kept.put(Thing())
    gone = [weakref.ref(obj) for shard in pool._store.primary.values() for obj in (*shard.private, *shard.shared)]
    assert len(gone) == 10
    with anyio.fail_after(PATIENCE):
        while any(ref() is not None for ref in gone):
            await anyio.sleep(0.005)
    assert pool.stats().cycles == 2
    assert (kept.stats().cycles, kept.stats().idle) == (0, 10)


async def test_a_loop_with_nothing_idle_has_no_timer(aiopool):
    pool = aiopool.Pool(idle_timeout=0.01)
    pool.put(Thing())
    processor = aiopool.current_processor()
    with anyio.fail_after(PATIENCE):
        while pool._store.shards():
            await anyio.sleep(0.005)
    others = [each for each in aiopool.pools() if each is not pool]
    stores = [store for each in others for store in each._stores]
    with anyio.fail_after(PATIENCE):
        # trio runs posted callbacks in any order.
        while processor.wakes_at != min([store.idle_due() for store in stores], default=math.inf):
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("loop_bound", [False, True])
async def test_any_cycle_postpones_the_idle_timeout(aiopool, loop_bound):
    pool = aiopool.Pool(idle_timeout=50, loop_bound=loop_bound)
    pool.put(Thing())
    due = pool._store.idle_due()
    aiopool.cleanup()
    assert pool._store.idle_due() > due


def test_a_later_loop_takes_over_the_timer_of_one_that_ended(aiopool):
    pool = aiopool.Pool(idle_timeout=0.02)
    thing = Thing()
    gone = weakref.ref(thing)

    async def put(obj):
        pool.put(obj)

    async def come_by_and_wait():
        aiopool.Pool().get()
        async with asyncio.timeout(PATIENCE):
            while gone() is not None:
                await asyncio.sleep(0.005)

    asyncio.run(put(thing))
    del thing
    assert gone() is not None
    asyncio.run(come_by_and_wait())


def test_a_context_that_outlives_its_loop_does_not_keep_the_timer_there(aiopool):
    """pytest-asyncio carries the context of a fixture's loop into tests on other loops."""
    context = contextvars.copy_context()
    pool = aiopool.Pool(idle_timeout=0.02)

    async def use(things):
        for thing in things:
            pool.put(thing)

    async def use_and_wait():
        await use([Thing()])
        async with asyncio.timeout(PATIENCE):
            while pool.stats().idle:
                await asyncio.sleep(0.005)

    for coroutine in use([Thing(), Thing()]), use_and_wait():
        with asyncio.Runner() as runner:
            runner.run(coroutine, context=context)


def test_a_live_loop_watches_objects_that_off_loop_code_leaves_idle(aiopool):
    pool = aiopool.Pool(idle_timeout=0.02)
    gone = threading.Event()
    thing = Thing()
    weakref.finalize(thing, gone.set)
    with loop_thread() as loop:
        loop.call(aiopool.current_processor)
        pool.put(thing)
        del thing
        # In turns: without a GIL an object is freed in the thread that created it, when that thread next runs bytecode.
        assert any(gone.wait(0.05) for _ in range(int(PATIENCE / 0.05)))


def test_a_get_sets_a_timer_for_what_a_loop_that_ended_left_idle(aiopool):
    """The loop that ended had the only timer, and a loop that only gets adds no shard, which would set one."""
    with no_other_pools(aiopool), loop_thread() as getting:
        pool = aiopool.Pool(idle_timeout=60)
        processor = getting.call(aiopool.current_processor)
        with loop_thread() as ended:
            for _ in range(3):
                ended.call(pool.put, Thing())
        assert processor.wakes_at == math.inf
        getting.call(pool.get)
        assert pool.stats().stolen == 1
        assert processor.wakes_at < math.inf


def test_in_a_context_that_outlives_its_loop_a_get_sets_a_timer_on_the_new_loop(aiopool):
    """The old loop had no timer whose end would have undone the binding in the context."""
    context = contextvars.copy_context()
    pins, timers = [], []

    async def pin():
        pins.append(aiopool.current_processor())

    async def get():
        pool.get()
        timers.append(pins[0].wakes_at)

    def run(coroutine):
        with asyncio.Runner() as runner:
            runner.run(coroutine, context=context)

    with no_other_pools(aiopool):
        pool = aiopool.Pool(idle_timeout=60)
        run(pin())
        pool.put(Thing())
        pool.put(Thing())
        assert pins[0].wakes_at == math.inf
        run(get())
        assert timers[0] < math.inf


@pytest.mark.parametrize("control", [False, True], ids=["as it is", "negative control"])
def test_a_finalizer_in_the_middle_of_the_loops_own_code_may_set_a_timer(reference, monkeypatch, control):
    """Asyncio runs Python code to insert a new timer into its heap, and a finalizer may interrupt that."""

    def call_soon(self, callback):
        """A negative control: it sets the timer at once if it runs on the loop's own thread."""
        callback()
        return True

    def intrude(handle, other):
        monkeypatch.setattr(asyncio.TimerHandle, "__lt__", before)
        pool.put(Thing())
        return before(handle, other)

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(50, print)
        monkeypatch.setattr(asyncio.TimerHandle, "__lt__", intrude)
        loop.call_later(40, print)
        assert pool.stats().idle == 1
        async with asyncio.timeout(PATIENCE):
            while pool.stats().idle:
                await asyncio.sleep(0.005)

    before = asyncio.TimerHandle.__lt__
    pool = reference.Pool(idle_timeout=0.02)
    if control:
        monkeypatch.setattr(reference._core.loops.AsyncioLoop, "call_soon", call_soon)
        with pytest.raises(RuntimeError, match="list changed size"):
            asyncio.run(main())
    else:
        asyncio.run(main())


def test_without_a_live_loop_the_next_use_checks_the_time(reference, monkeypatch):
    core = reference._core
    now = core.store.monotonic()
    for module in (core.store, core.cleanup, core.timers, core.freeing):
        monkeypatch.setattr(module, "monotonic", lambda: now)
    pool = reference.Pool(idle_timeout=60)
    thing = Thing()
    gone = weakref.ref(thing)
    pool.put(thing)
    del thing
    for seconds in 30, 61, 122:
        now += seconds - (now - pool._store._contents.since)
        pool.put(pool.get() if gone() is None else Thing())
    assert pool.stats().cycles == 2
    assert not core.freeing._queue


# --- cycles ---


def test_a_cycle_touches_no_object_and_no_shard(reference):
    class Untouchable:
        def __getattribute__(self, name):
            raise AssertionError(f"touched {name}")

    pool = reference.Pool()
    contents = pool._store._contents
    contents.generations[max(contents.generations)][1] = Untouchable()
    assert pool._store.rotate() == []
    assert len(pool._store.rotate()) == 1


@pytest.mark.parametrize("method", ["rotate", "idle_due"])
def test_what_visits_all_pools_keeps_none_alive_but_the_one_it_is_at(aiopool, method):
    """On free-threaded builds a garbage collection frees pools, and some thread may be in here at any time."""
    pools, alive = [aiopool.Pool()], []

    def drop_and_count():
        pools.clear()
        gc.collect()
        alive.append(sum(ref() is not None for ref in refs))

    visited = VisitedPool(**{method: drop_and_count})
    aiopool._core.registry.register(visited)
    pools.append(aiopool.Pool())
    refs = [weakref.ref(pool) for pool in pools]

    visit = aiopool.cleanup if method == "rotate" else aiopool._core.timers.next_due
    visit()
    assert alive == [0]


class VisitedPool:
    """Is registered like a pool, and calls a function when a visitor calls a method of its only store."""

    def __init__(self, **callbacks):
        self._callbacks = callbacks
        self._stores = (self,)

    def _called(self, method, result):
        self._callbacks.pop(method, lambda: None)()
        return result

    def rotate(self):
        return self._called("rotate", [])

    def idle_due(self):
        return self._called("idle_due", math.inf)


def test_finalizers_may_start_a_cycle(aiopool):
    died = []

    class Watches:
        def __del__(self):
            died.append(1)
            aiopool.cleanup()

    pool = aiopool.Pool()
    for _ in range(4):
        pool.put(Watches())
    aiopool.cleanup()
    aiopool.cleanup()
    assert died == [1] * 4


async def test_a_finalizer_that_puts_its_object_back_while_it_is_dropped(aiopool):
    class PutsItselfBack:
        def __del__(self):
            pool.put(self)

    pool = aiopool.Pool()
    for _ in range(10):
        pool.put(PutsItselfBack())
    for _ in range(2):
        aiopool.cleanup()
    await all_freed(aiopool)
    found = [pool.get() for _ in range(10)]
    assert len({id(obj) for obj in found}) == 10
    assert None not in found
    assert pool.get() is None
