"""`AsyncPool`: get, put, borrow, fill, clear and aclose. test_async_pool_awaits.py has the tests of cancellation."""

import asyncio
import copy
import gc
import pickle
import weakref

import anyio
import anyio.lowlevel
import pytest
from awaits import Tracker, check_objects, finish, result_of, step, suspend, throw
from loops import PATIENCE, in_threads, loop_thread
from shared import FREE_THREADED, Thing

# --- get ---


def test_a_hit_does_not_suspend(aiopool):
    pool = aiopool.AsyncPool(Thing)
    thing, waits = finish(pool.get())
    assert waits == 0
    assert finish(pool.put(thing)) == (None, 0)
    assert finish(pool.get()) == (thing, 0)

    async def block():
        async with pool.borrow() as borrowed:
            return borrowed

    assert finish(pool.put(thing)) == (None, 0)
    assert finish(block()) == (thing, 0)


def test_two_tasks_that_miss_at_the_same_time_both_create_an_object(aiopool):
    begun = []

    async def new():
        begun.append(len(begun))
        await suspend()
        return Thing()

    pool = aiopool.AsyncPool(new)
    first, second = pool.get(), pool.get()
    assert not step(first)
    assert not step(second)
    assert begun == [0, 1]
    assert result_of(second) is not result_of(first)
    assert pool.stats().created == 2


def test_no_task_waits_for_an_object_in_use(aiopool):
    # While one put waits in `reset` and one get waits in `new`, others get and put.
    tracker = Tracker()
    pool = aiopool.AsyncPool(tracker.new, reset=tracker.reset)
    a, b = result_of(pool.get()), result_of(pool.get())
    slow_put, slow_get = pool.put(a), pool.get()
    assert not step(slow_put)
    assert not step(slow_get)
    assert finish(pool.put(b)) == (None, 2)
    assert finish(pool.get()) == (b, 0)
    result_of(slow_put)
    assert result_of(slow_get) is tracker.made[2]


class Opening:
    """An object that must be awaited before it is ready, such as aiosqlite's connection."""

    def __init__(self):
        self.open = False

    def __await__(self):
        yield
        self.open = True
        return self


def test_any_awaitable_is_awaited(aiopool):
    pool = aiopool.AsyncPool(Opening, reset=lambda thing: Opening())
    thing = result_of(pool.get())
    assert thing.open
    assert finish(pool.put(thing)) == (None, 1)
    assert result_of(pool.get()) is thing


@pytest.mark.anyio
async def test_plain_callbacks_work(aiopool):
    closed = []
    pool = aiopool.AsyncPool(bytearray, reset=lambda buffer: len(buffer) < 3, close=closed.append)
    async with pool.borrow() as buffer:
        buffer += b"too long"
    assert (closed, pool.stats().idle) == ([b"too long"], 0)
    async with pool.borrow() as buffer:
        buffer += b"ok"
    assert await pool.get() is buffer


@pytest.mark.anyio
async def test_new_that_raises_leaves_the_pool_unchanged(aiopool):
    async def new():
        raise OSError("no more sockets")

    pool = aiopool.AsyncPool(new)
    with pytest.raises(OSError, match="no more sockets"):
        await pool.get()
    borrow = pool.borrow()
    for _ in range(2):
        with pytest.raises(OSError, match="no more sockets"):
            await borrow.__aenter__()
    assert (pool.stats().misses, pool.stats().created, pool.stats().puts) == (3, 0, 0)
    await pool.put(thing := Thing())
    assert await pool.get() is thing


# --- put ---


@pytest.mark.anyio
async def test_put_none_changes_nothing(aiopool):
    for pool in (aiopool.AsyncPool(Thing), aiopool.AsyncPool(Thing, reset=lambda thing: None)):
        await pool.put(None)
        assert (pool.stats().puts, pool.stats().idle) == (0, 0)


@pytest.mark.anyio
async def test_the_exception_of_reset_reaches_the_caller_and_the_object_is_closed(aiopool):
    closed = []

    async def reset(thing):
        raise ValueError("broken state")

    pool = aiopool.AsyncPool(Thing, reset=reset, close=closed.append)
    thing = await pool.get()
    with pytest.raises(ValueError, match="broken state"):
        await pool.put(thing)
    assert closed == [thing]
    assert (pool.stats().idle, pool.stats().puts, pool.stats().dropped) == (0, 1, 1)


@pytest.mark.anyio
async def test_close_that_raises_after_a_failed_reset_shows_both(aiopool):
    def fail(thing):
        raise OSError("cannot close")

    def reset(thing):
        raise ValueError("broken state")

    pool = aiopool.AsyncPool(Thing, reset=reset, close=fail)
    with pytest.raises(OSError, match="cannot close") as raised:
        await pool.put(await pool.get())
    assert isinstance(raised.value.__context__, ValueError)
    assert (pool.stats().idle, pool.stats().dropped) == (0, 1)


@pytest.mark.anyio
async def test_objects_put_beyond_max_idle_are_closed(aiopool):
    closed = []
    pool = aiopool.AsyncPool(Thing, close=closed.append, max_idle=2)
    things = [await pool.get() for _ in range(5)]
    for thing in things:
        await pool.put(thing)
    assert closed == things[2:]
    assert (pool.stats().idle, pool.stats().rejected) == (2, 3)


# --- borrow ---


@pytest.mark.anyio
async def test_a_block_that_fails_closes_its_object(aiopool):
    closed = []
    pool = aiopool.AsyncPool(Thing, close=closed.append)
    with pytest.raises(ZeroDivisionError):
        async with pool.borrow() as thing:
            raise ZeroDivisionError
    assert closed == [thing]
    assert (pool.stats().idle, pool.stats().rejected) == (0, 1)


@pytest.mark.anyio
async def test_a_borrow_cannot_be_entered_while_it_is_in_use(aiopool):
    pool = aiopool.AsyncPool(Thing)
    borrow = pool.borrow()
    async with borrow:
        with pytest.raises(RuntimeError, match=r"call borrow\(\) for each block"):
            await borrow.__aenter__()
    assert pool.stats().idle == 1
    async with borrow:
        assert pool.stats().idle == 0
    await borrow.__aexit__(None, None, None)
    assert pool.stats().idle == 1


def test_two_tasks_cannot_enter_one_borrow_at_the_same_time(aiopool):
    tracker = Tracker()
    pool = aiopool.AsyncPool(tracker.new)
    borrow = pool.borrow()
    first, second = borrow.__aenter__(), borrow.__aenter__()
    assert not step(first)
    with pytest.raises(RuntimeError, match="call borrow"):
        step(second)
    assert result_of(first) is tracker.made[0]
    assert len(tracker.made) == 1


# --- fill, clear, aclose ---


@pytest.mark.anyio
async def test_fill_keeps_objects_created_before_new_raised(aiopool):
    stock = [Thing(), Thing()]

    async def new():
        return stock.pop()

    pool = aiopool.AsyncPool(new)
    with pytest.raises(IndexError):
        await pool.fill(3)
    assert (pool.stats().idle, pool.stats().created) == (2, 2)


@pytest.mark.anyio
async def test_fill_closes_objects_over_max_idle(aiopool):
    closed = []
    pool = aiopool.AsyncPool(Thing, close=closed.append, max_idle=3)
    await pool.fill(2)
    await pool.fill(2)
    assert (pool.stats().idle, len(closed)) == (3, 1)
    with pytest.raises(ValueError, match=r"fill\(4\).*max_idle is 3"):
        await pool.fill(4)


@pytest.mark.anyio
async def test_clear_closes_idle_objects_and_leaves_the_pool_usable(aiopool):
    closed = []
    pool = aiopool.AsyncPool(Thing, close=closed.append)
    await pool.fill(2)
    aiopool.cleanup()
    await pool.fill(2)
    assert await pool.clear() == 4
    assert (len(set(closed)), pool.stats().idle, pool.stats().dropped) == (4, 0, 4)
    assert await pool.get() not in closed


@pytest.mark.anyio
async def test_aclose_closes_idle_objects_of_all_loops_and_later_puts(aiopool):
    closed = []
    pool = aiopool.AsyncPool(Thing, close=closed.append)
    lent = await pool.get()
    await pool.fill(2)
    with loop_thread() as other:
        # One object for each loop: there is no private slot, whose object would be out of reach here.
        theirs = other.run(pool.get())
        other.run(pool.put(theirs))
        other.run(pool.fill(2))
        await pool.aclose()
        assert len(set(closed)) == len(closed) == 4
    await pool.put(lent)
    assert closed[-1] is lent
    await pool.aclose()
    assert (len(closed), pool.stats().idle) == (5, 0)


@pytest.mark.anyio
async def test_after_aclose_a_get_raises(aiopool):
    pool = aiopool.AsyncPool(Thing, name="links")
    await pool.aclose()
    with pytest.raises(RuntimeError, match=r"'links'.* was closed by aclose\(\)"):
        await pool.get()
    with pytest.raises(RuntimeError, match="closed"):
        await pool.fill(1)
    with pytest.raises(RuntimeError, match="closed"):
        async with pool.borrow():
            pass


def test_an_object_that_is_being_created_during_aclose_is_closed_when_it_is_put(aiopool):
    tracker = Tracker()
    pool = aiopool.AsyncPool(tracker.new, reset=tracker.reset, close=tracker.close)
    mine = result_of(pool.get())
    slow_get, slow_put, slow_fill = pool.get(), pool.put(mine), pool.fill(1)
    for coroutine in slow_get, slow_put, slow_fill:
        assert not step(coroutine)
    result_of(pool.aclose())
    thing = result_of(slow_get)
    result_of(slow_put)
    result_of(slow_fill)
    assert set(tracker.closed) == set(tracker.made) - {thing}
    result_of(pool.put(thing))
    assert set(tracker.closed) == set(tracker.made)
    check_objects(pool, tracker, [])


@pytest.mark.parametrize("reset", [None, lambda thing: None])
def test_an_object_put_during_another_threads_aclose_is_closed(aiopool, reset):
    closed = []
    pool = aiopool.AsyncPool(Thing, close=closed.append, reset=reset)
    thing = result_of(pool.get())
    inner = pool._store

    class ClosedInBetween:
        def __getattr__(self, name):
            return getattr(inner, name)

        def keep(self, obj):
            result_of(pool.aclose())  # after put checked whether the pool is closed, and before the object is idle
            return inner.keep(obj)

    pool._store = ClosedInBetween()
    result_of(pool.put(thing))
    assert closed == [thing]


@pytest.mark.anyio
async def test_a_close_that_raises_does_not_prevent_the_others(aiopool):
    closed = []

    async def close(thing):
        closed.append(thing)
        if len(closed) in failing:
            raise OSError(len(closed))

    pool = aiopool.AsyncPool(Thing, close=close)
    failing = {2}
    await pool.fill(3)
    with pytest.raises(OSError, match="2"):
        await pool.clear()
    assert (len(closed), pool.stats().idle) == (3, 0)
    failing = {4, 6}
    await pool.fill(3)
    with pytest.raises(ExceptionGroup, match="closing idle objects failed") as raised:
        await pool.clear()
    assert [error.args for error in raised.value.exceptions] == [(4,), (6,)]
    assert (len(closed), pool.stats().idle) == (6, 0)


def test_a_cancellation_after_failed_closes_is_raised_and_leaves_the_rest_idle(aiopool):
    async def close(thing):
        if not failed:
            failed.append(thing)
            raise OSError("cannot close")
        await suspend()

    failed = []
    pool = aiopool.AsyncPool(Thing, close=close)
    result_of(pool.fill(4))
    closing = pool.aclose()
    assert not step(closing)
    assert isinstance(throw(closing).__cause__, OSError)
    assert pool.stats().idle == 2
    result_of(pool.clear())
    assert pool.stats().idle == 0


def test_a_coroutine_that_is_closed_leaves_no_warning_and_calls_a_plain_close(aiopool):
    # Here a warning that a coroutine was never awaited would be an error.
    for close in (Tracker().close, [].append):
        pool = aiopool.AsyncPool(Thing, close=close)

        async def block(pool=pool):
            async with pool.borrow():
                await suspend()

        coroutine = block()
        assert not step(coroutine)
        coroutine.close()
        gc.collect()
        assert (pool.stats().idle, pool.stats().rejected) == (0, 1)
    assert len(close.__self__) == 1


# --- many loops ---


def test_every_loop_finds_the_objects_of_an_ended_one(aiopool):
    pool = aiopool.AsyncPool(Thing)
    thing = asyncio.run(pool.get())
    with loop_thread() as other:
        other.run(pool.put(thing))
        assert asyncio.run(pool.get()) is thing
    assert pool.stats().stolen == 1


def test_concurrent_loops_lose_nothing(aiopool):
    tracker = Tracker()

    async def new():
        await asyncio.sleep(0)
        tracker.made.append(thing := Thing())
        return thing

    async def close(thing):
        await asyncio.sleep(0)
        tracker.closing.append(thing)

    pool = aiopool.AsyncPool(new, close=close, max_idle=2)

    async def task():
        for _ in range(20):
            async with pool.borrow() as thing:
                thing.user = asyncio.current_task()
                await asyncio.sleep(0)
                assert thing.user is asyncio.current_task()

    async def work():
        await asyncio.gather(*(task() for _ in range(5)))

    in_threads([lambda: asyncio.run(work())] * 4)
    check_objects(pool, tracker, [])
    asyncio.run(pool.aclose())
    assert len(tracker.closing) == len(set(tracker.closing)) == len(tracker.made)


# --- the pool itself ---


@pytest.mark.anyio
async def test_objects_dropped_by_cleanup_cycles_are_not_closed(aiopool):
    closed = []
    pool = aiopool.AsyncPool(Thing, close=closed.append)
    await pool.put(thing := await pool.get())
    ref = weakref.ref(thing)
    del thing
    aiopool.cleanup()
    aiopool.cleanup()
    with anyio.fail_after(PATIENCE):
        while ref() is not None:
            await anyio.lowlevel.checkpoint()
    assert closed == []
    assert (pool.stats().idle, pool.stats().dropped, pool.stats().cycles) == (0, 1, 2)


def test_pools_lists_it_until_it_is_no_longer_referenced(aiopool):
    before = aiopool.pools()
    pool = aiopool.AsyncPool(Thing, name="links")
    assert [each for each in aiopool.pools() if each not in before] == [pool]
    assert repr(pool) == "<aiopool.AsyncPool 'links'>"
    ref = weakref.ref(pool)
    del pool
    if FREE_THREADED:
        gc.collect()  # only then are the references to a pool counted
    assert ref() is None
    assert len(aiopool.pools()) == len(before)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_cannot_be_copied_or_pickled(aiopool, how):
    with pytest.raises(TypeError, match=r"cannot copy or pickle <aiopool.AsyncPool 'links'>"):
        how(aiopool.AsyncPool(Thing, name="links"))


@pytest.mark.parametrize("what", ["new", "reset", "close"])
def test_arguments_that_must_be_callable(aiopool, what):
    with pytest.raises(TypeError, match=rf"{what} must be callable.*, not 3"):
        aiopool.AsyncPool(**{"new": Thing, what: 3})
    with pytest.raises(TypeError, match="new must be callable, not None"):
        aiopool.AsyncPool(None)
