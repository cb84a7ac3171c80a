"""Retired objects are freed in slices of a millisecond, between the other callbacks of a loop."""

import asyncio
import itertools
import math
import threading
import weakref

import anyio
import anyio.lowlevel
import pytest
from loops import PATIENCE, all_freed, loop_thread
from shared import FREE_THREADED, Thing

pytestmark = pytest.mark.anyio


@pytest.fixture
def ticking(reference, monkeypatch):
    """A clock that advances by a tenth of a millisecond each time it is read."""
    ticks = itertools.count()
    monkeypatch.setattr(reference._core.freeing, "perf_counter", lambda: next(ticks) * 0.0001)
    return reference


async def drops_between_turns(package, count, pools=1, *, loop_bound=False):
    """How many of `count` objects of several pools are freed in each iteration of the loop."""
    dead = []

    class Counted:
        def __del__(self):
            dead.append(1)

    alive = [package.Pool(Counted, loop_bound=loop_bound) for _ in range(pools)]
    for pool in alive:
        held = [pool.get() for _ in range(count // pools)]
        while held:
            pool.put(held.pop())
    package.cleanup()
    package.cleanup()
    turns = [len(dead)]
    with anyio.fail_after(PATIENCE):
        while len(dead) < count:
            await anyio.lowlevel.checkpoint()
            turns.append(len(dead))
    return [after - before for before, after in itertools.pairwise(turns)]


@pytest.mark.parametrize("loop_bound", [False, True])
@pytest.mark.parametrize("pools", [1, 20])
async def test_large_victims_are_freed_in_slices_of_a_millisecond(ticking, pools, loop_bound):
    # A slice reads the clock once at its start and once after each object, but for the private one of each shard. trio
    # runs its tasks in random order, so two slices can run between two iterations of this task.
    slices = 2 if isinstance(ticking.current_processor().loop, ticking._core.loops.TrioLoop) else 1
    freed = await drops_between_turns(ticking, 100, pools, loop_bound=loop_bound)
    assert max(freed) <= 20 * slices


async def test_a_loop_whose_callbacks_take_long_spends_a_share_of_its_time_on_freeing(reference, monkeypatch):
    """With a millisecond after each callback of a second it would free less than is retired meanwhile."""
    readings, late = itertools.count(), 0.0
    monkeypatch.setattr(reference._core.freeing, "perf_counter", lambda: next(readings) * 0.0001 + late)
    pool = reference.Pool(Thing)
    things = [pool.get() for _ in range(1000)]
    gone = [weakref.ref(thing) for thing in things]
    while things:
        pool.put(things.pop())
    pool.clear()
    late = 1.0
    with anyio.fail_after(PATIENCE):
        while all(ref() for ref in gone):
            await anyio.lowlevel.checkpoint()
    # 50 ms, and the clock advances by a tenth of a millisecond for each object. On trio two slices may have run.
    assert 500 <= sum(ref() is None for ref in gone) <= 520


async def test_freeing_everything_at_once_is_one_long_stop(ticking, monkeypatch):
    monkeypatch.setattr(ticking._core.freeing, "SLICE", math.inf)
    assert max(await drops_between_turns(ticking, 100)) >= 99


def test_without_a_live_loop_objects_are_freed_at_once(ticking):
    pool = ticking.Pool()
    things = [Thing() for _ in range(100)]
    gone = [weakref.ref(thing) for thing in things]
    while things:
        pool.put(things.pop())
    ticking.cleanup()
    ticking.cleanup()
    assert [ref() for ref in gone] == [None] * 100


def test_a_loop_that_ends_while_freeing_passes_on_the_rest(ticking):
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


def test_freeing_continues_after_an_exception(reference, monkeypatch):
    """After an exception such as Ctrl-C, the next code that retires objects frees the rest."""

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

    class Reports:
        def __del__(self):
            dying.append(threading.get_ident())

    pool = aiopool.Pool()
    for _ in range(10):
        pool.put(Reports())
    with loop_thread() as loop:
        loop.call(aiopool.current_processor)
        pool.clear()
        loop.call(lambda: None)
        assert len(dying) == 10
        # Without a GIL an object's finalizer runs in the thread that created it, wherever it is dropped.
        assert set(dying) == {threading.get_ident() if FREE_THREADED else loop.thread.ident}


async def test_one_slice_at_a_time_waits_on_a_loop(aiopool, monkeypatch):
    """Each cycle adds to the queue; only the first posts a slice, and nothing is freed before that runs."""
    pool = aiopool.Pool()
    posted = []
    make = aiopool._core.freeing._Slice
    monkeypatch.setattr(aiopool._core.freeing, "_Slice", lambda *args: posted.append(args) or make(*args))
    for _ in range(5):
        for _ in range(3):
            pool.put(Thing())
        aiopool.cleanup()
    assert len(posted) == 1
    assert aiopool._core.freeing._queue
    await all_freed(aiopool)
