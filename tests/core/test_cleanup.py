"""When cleanup cycles come, and how what they drop is freed."""

import asyncio
import contextvars
import gc
import itertools
import math
import threading
import weakref

import anyio
import anyio.lowlevel
import pytest
from children import run_program
from loops import PATIENCE, in_thread, loop_thread
from shared import FREE_THREADED, Thing

pytestmark = pytest.mark.anyio


async def dropped_all(aiopool):
    with anyio.fail_after(PATIENCE):
        while aiopool._core.freeing._queue:
            await anyio.lowlevel.checkpoint()


# --- the garbage collector as a clock ---

# What gc.callbacks reported while 3,000,000 cycles were made on a heap of 200,000 objects, by interpreter.
REPORTS = {
    "generational (3.13.0)": ([*[*[0] * 10, 1] * 64, 2] * 2, False, 2),
    "incremental (3.14.0)": ([1] * 1529, False, 15),
    "free-threaded (3.14.7)": ([0] * 13, True, 13),
    "gc.collect() anywhere": ([2], False, 1),
}


def cycles_of(is_full, reports):
    return sum(map(is_full, reports))


@pytest.mark.parametrize(("reports", "every", "cycles"), REPORTS.values(), ids=REPORTS)
def test_full_collections_are_recognized_on_each_build(aiopool, reports, every, cycles):
    clock = aiopool._core.gc_clock.GCClock(every_collection_is_full=every)
    assert cycles_of(clock.is_full, reports) == cycles


@pytest.mark.parametrize("naive", [lambda generation: generation == 2, lambda generation: True])
def test_neither_naive_rule_is_right_on_every_build(naive):
    assert [cycles_of(naive, reports) for reports, _, _ in REPORTS.values()] != [2, 15, 13, 1]


@pytest.mark.parametrize(("reports", "every", "cycles"), REPORTS.values(), ids=REPORTS)
def test_the_callback_runs_a_cycle_for_each_full_collection(reference, monkeypatch, reports, every, cycles):
    monkeypatch.setattr(
        reference._core.gc_clock, "_clock", reference._core.gc_clock.GCClock(every_collection_is_full=every)
    )
    pool = reference.Pool()
    for generation, phase in itertools.product(reports, ("start", "stop")):
        reference._core.gc_clock._on_gc(phase, {"generation": generation, "collected": 0, "uncollectable": 0})
    assert pool.stats().cycles == cycles


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_every_kind_of_collection_with_full_pools(aiopool, generation):
    pool = aiopool.Pool()
    things = [Thing() for _ in range(5)]
    for thing in things:
        pool.put(thing)
    for _ in range(5):
        gc.collect(generation)
        obj = pool.get()
        assert obj in things
        pool.put(obj)
    # Without a GIL each collection is full.
    assert pool.stats().cycles == (5 if generation == 2 or FREE_THREADED else 0)


def test_cleared_gc_callbacks_are_set_again(aiopool):
    pool = aiopool.Pool()
    others = list(gc.callbacks)
    gc.callbacks.clear()
    try:
        in_thread(pool.put, Thing())
        assert aiopool._core.gc_clock._on_gc in gc.callbacks
        gc.collect()
        assert pool.stats().cycles == 1
    finally:
        gc.callbacks[:] = others


# --- idle time ---


async def test_idle_objects_go_when_nothing_happens_any_more(aiopool):
    """With the collector off, on every kind of loop."""
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
        # trio takes up what was posted in any order.
        while processor.wakes_at != min([store.idle_due() for store in stores], default=math.inf):
            await anyio.lowlevel.checkpoint()


async def test_a_cycle_of_another_kind_puts_off_the_idle_one(aiopool):
    pool = aiopool.Pool(idle_timeout=50)
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


def test_what_off_loop_code_leaves_idle_is_watched_by_a_live_loop(aiopool):
    pool = aiopool.Pool(idle_timeout=0.02)
    gone = threading.Event()
    thing = Thing()
    weakref.finalize(thing, gone.set)
    with loop_thread() as loop:
        loop.call(aiopool.current_processor)
        pool.put(thing)
        del thing
        # In turns: without a GIL an object dies in the thread that made it, once that thread runs bytecode again.
        assert any(gone.wait(0.05) for _ in range(int(PATIENCE / 0.05)))


@pytest.mark.parametrize("naive", [False, True], ids=["as it is", "naive"])
def test_a_finalizer_in_the_middle_of_the_loops_own_code_may_set_a_timer(reference, monkeypatch, naive):
    """In finding the place of a new timer on its heap, asyncio runs Python code, and finalizers can run in that."""

    def call_soon(self, callback):
        """As if the loop's own thread could set the timer at once."""
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
    if naive:
        monkeypatch.setattr(reference._core.loops.AsyncioLoop, "call_soon", call_soon)
        with pytest.raises(RuntimeError, match="list changed size"):
            asyncio.run(main())
    else:
        asyncio.run(main())


def test_with_no_loop_alive_the_next_use_looks_at_the_time(reference, monkeypatch):
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


def test_objects_that_start_a_cycle_as_they_die(aiopool):
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
    class Phoenix:
        def __del__(self):
            pool.put(self)

    pool = aiopool.Pool()
    for _ in range(10):
        pool.put(Phoenix())
    for _ in range(2):
        aiopool.cleanup()
    await dropped_all(aiopool)
    found = [pool.get() for _ in range(10)]
    assert len({id(obj) for obj in found}) == 10
    assert None not in found
    assert pool.get() is None


# --- dropping in slices ---


@pytest.fixture
def ticking(reference, monkeypatch):
    """A clock that goes on by a tenth of a millisecond each time that somebody looks at it."""
    ticks = itertools.count()
    monkeypatch.setattr(reference._core.freeing, "perf_counter", lambda: next(ticks) * 0.0001)
    monkeypatch.setattr(reference._core.bound_loops, "perf_counter", lambda: next(ticks) * 0.0001)
    return reference


async def drops_between_turns(package, count):
    """How many of `count` objects die between two turns of the loop, turn by turn."""
    dead = []

    class Counted:
        def __del__(self):
            dead.append(1)

    pool = package.Pool()
    for _ in range(count):
        pool.put(Counted())
    package.cleanup()
    package.cleanup()
    turns = [len(dead)]
    with anyio.fail_after(PATIENCE):
        while len(dead) < count:
            await anyio.lowlevel.checkpoint()
            turns.append(len(dead))
    return [after - before for before, after in itertools.pairwise(turns)]


async def test_a_big_victim_is_dropped_in_slices_of_a_millisecond(ticking):
    # A slice looks at the clock once to start and once after each object. trio takes up its tasks in random order, so
    # that two slices can come between two turns of this one.
    slices = 2 if isinstance(ticking.current_processor().loop, ticking._core.loops.TrioLoop) else 1
    assert max(await drops_between_turns(ticking, 100)) <= 10 * slices + 1


async def test_dropping_at_once_is_one_long_stop(ticking, monkeypatch):
    monkeypatch.setattr(ticking._core.freeing, "SLICE", math.inf)
    assert max(await drops_between_turns(ticking, 100)) >= 99


def test_with_no_loop_alive_it_is_dropped_at_once(ticking):
    pool = ticking.Pool()
    things = [Thing() for _ in range(100)]
    gone = [weakref.ref(thing) for thing in things]
    while things:
        pool.put(things.pop())
    ticking.cleanup()
    ticking.cleanup()
    assert [ref() for ref in gone] == [None] * 100


def test_a_loop_that_ends_in_the_middle_passes_on_the_rest(ticking):
    pool = ticking.Pool()
    things = [Thing() for _ in range(100)]
    gone = [weakref.ref(thing) for thing in things]

    async def retire():
        while things:
            pool.put(things.pop())
        ticking.cleanup()
        ticking.cleanup()
        assert ticking._core.freeing._queue

    asyncio.run(retire())
    assert sum(ref() is not None for ref in gone) <= 1
    assert not ticking._core.freeing._queue


def test_freeing_that_fails_can_go_on_later(reference, monkeypatch):
    """Whatever comes up, such as Ctrl-C: the next one who retires something frees the rest."""

    def interrupted(deadline):
        raise KeyboardInterrupt

    pool = reference.Pool()
    thing = Thing()
    gone = weakref.ref(thing)
    pool.put(thing)
    del thing
    with monkeypatch.context() as patch:
        patch.setattr(reference._core.freeing, "free_until", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.clear()
    assert gone() is not None
    pool.clear()
    assert gone() is None


def test_objects_retired_off_loop_are_freed_on_a_live_loop(aiopool):
    dying = []

    class Tells:
        def __del__(self):
            dying.append(threading.get_ident())

    pool = aiopool.Pool()
    for _ in range(10):
        pool.put(Tells())
    with loop_thread() as loop:
        loop.call(aiopool.current_processor)
        pool.clear()
        loop.call(lambda: None)
        assert len(dying) == 10
        # Without a GIL an object's finalizer runs in the thread that created it, wherever it is dropped.
        assert set(dying) == {threading.get_ident() if FREE_THREADED else loop.thread.ident}


async def test_one_slice_at_a_time_waits_on_a_loop(aiopool, monkeypatch):
    """Each cycle adds to the queue; only the first posts a slice."""
    pool = aiopool.Pool()
    posted = []
    make = aiopool._core.freeing._Slice
    monkeypatch.setattr(aiopool._core.freeing, "_Slice", lambda *args: posted.append(args) or make(*args))
    monkeypatch.setattr(aiopool._core.freeing, "PATIENCE", math.inf)
    for _ in range(5):
        for _ in range(3):
            pool.put(Thing())
        aiopool.cleanup()
    assert len(posted) == 1
    await dropped_all(aiopool)


# --- the process as a whole ---


@pytest.mark.parametrize("flags", [[], ["-X", "dev"]], ids=["plain", "dev"])
def test_interpreter_shutdown_with_full_pools(aiopool, child_env, flags):
    assert run_program("full_pools_at_exit.py", child_env, options=flags) == ""
