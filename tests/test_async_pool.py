"""`AsyncPool`: what it promises at every await, driven by hand to each of them, and on real loops."""

import asyncio
import contextlib
import copy
import gc
import pickle
import types
import weakref

import anyio
import anyio.lowlevel
import pytest
from loops import PATIENCE, in_threads, loop_thread
from shared import FREE_THREADED, Thing


class Stop(BaseException):
    """What is thrown into a coroutine where it waits, as a loop throws a cancellation."""


@types.coroutine
def suspend():
    """Wait once, for whoever drives the coroutine."""
    yield


def step(coroutine):
    """Drive `coroutine` to its next await. `True`: it is done."""
    try:
        coroutine.send(None)
    except StopIteration:
        return True
    return False


def finish(coroutine):
    """The result of `coroutine`, and how often it waited."""
    for waits in range(100):
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value, waits
    raise AssertionError("it waits for ever")


def result_of(coroutine):
    """The result of `coroutine`."""
    return finish(coroutine)[0]


# --- a pool with many awaits, and what must hold after each ---


class Ledger:
    """Three callbacks that wait several times each, and keep account of each object."""

    def __init__(self, *, good=True):
        self.good = good
        self.made = []
        self.dirty = set()
        self.closing = []
        self.closed = []

    async def new(self):
        thing = Thing()
        for _ in range(2):
            await suspend()
        self.made.append(thing)
        return thing

    async def reset(self, thing):
        self.dirty.add(thing)
        for _ in range(2):
            await suspend()
        self.dirty.discard(thing)
        return self.good

    async def close(self, thing):
        self.closing.append(thing)
        for _ in range(2):
            await suspend()
        self.closed.append(thing)


def idle_in(pool):
    """The idle objects, left where they are."""
    return [thing for _, shard in pool._store.shards() for thing in [*shard.private, *shard.shared]]


def check_the_books(pool, ledger, hands, *, async_close=True):
    """Each object that was made is in one place; nothing half-done is idle; the counts are right."""
    idle = idle_in(pool)
    places = [*idle, *hands, *(ledger.closing if async_close else [])]
    assert len(set(places)) == len(places), "an object is in two places"
    if async_close:
        assert set(places) == set(ledger.made), "an object is lost, or was never finished"
    else:
        assert set(places) <= set(ledger.made)
    assert not ledger.dirty & set(idle), "a half-reset object is idle"
    stats = pool.stats()
    assert stats.idle == len(idle)
    assert stats.hits + stats.created - stats.puts == len(hands), "the lent ones do not add up"
    assert stats.dropped == len(ledger.made) - len(idle) - len(hands)


async def op_get_that_misses(pool, hands):
    hands.append(await pool.get())


async def op_get_that_hits(pool, hands):
    hands.append(await pool.get())


async def op_put(pool, hands):
    await pool.put(hands.pop())


async def op_borrow(pool, hands):
    async with pool.borrow() as thing:
        hands.append(thing)
        try:
            await suspend()
            await suspend()
        finally:
            hands.remove(thing)


async def op_failing_borrow(pool, hands):
    with contextlib.suppress(ZeroDivisionError):
        async with pool.borrow():
            raise ZeroDivisionError


async def op_fill(pool, hands):
    await pool.fill(2)


async def op_clear(pool, hands):
    await pool.clear()


async def op_aclose(pool, hands):
    await pool.aclose()


async def op_put_after_aclose(pool, hands):
    await pool.put(hands.pop())


def set_up(make_pool, op, *, good=True, max_idle=None):
    """A pool at rest, right before `op`."""
    ledger = Ledger(good=True)
    pool = make_pool(ledger.new, reset=ledger.reset, close=ledger.close, max_idle=max_idle)
    hands = []
    if op in (op_clear, op_aclose, op_get_that_hits):
        result_of(pool.fill(min(3, 3 if max_idle is None else max_idle)))
    if op in (op_put, op_put_after_aclose):
        hands.append(result_of(pool.get()))
    if op is op_put_after_aclose:
        result_of(pool.aclose())
    ledger.good = good
    return pool, ledger, hands


def throw(coroutine):
    """Throw `Stop` into `coroutine`, and see it end with that, which is returned, after however many more awaits."""
    try:
        coroutine.throw(Stop())
        finish(coroutine)
    except Stop as stop:
        return stop
    raise AssertionError("it went on as if nothing had been")


def throw_again_and_again(coroutine):
    """Throw `Stop` at this await and at each that follows, as trio does to a cancelled task."""
    for _ in range(100):
        try:
            coroutine.throw(Stop())
        except Stop:
            return
    raise AssertionError("it waits for ever")


def close_it(coroutine):
    """As the interpreter does to a coroutine that nobody will drive any more; it must not wait again."""
    coroutine.close()


HOW = [throw, throw_again_and_again, close_it]


def interrupt_at_every_await(make_pool, op, how, **kwargs):
    """Break `op` off at each of its awaits, one run for each; how many there are."""
    for at in range(100):
        pool, ledger, hands = set_up(make_pool, op, **kwargs)
        coroutine = op(pool, hands)
        if any(step(coroutine) for _ in range(at + 1)):
            check_the_books(pool, ledger, hands)
            return at
        how(coroutine)
        # A coroutine that is closed can't await a close: what it held is dropped without.
        check_the_books(pool, ledger, hands, async_close=how is not close_it)
        ledger.good = True
        # The pool goes on as if nothing had been.
        if op not in (op_aclose, op_put_after_aclose):
            thing = result_of(pool.get())
            assert thing not in [*hands, *ledger.closing]
            result_of(pool.put(thing))
            assert not ledger.dirty & set(idle_in(pool))
        else:
            result_of(pool.aclose())
            assert idle_in(pool) == []
    raise AssertionError("it never ends")


# What each op awaits: new, reset and close twice each.
AWAITS = [
    (op_get_that_misses, {}, 2),
    (op_get_that_hits, {}, 0),
    (op_put, {}, 2),
    (op_put, {"good": False}, 4),
    (op_put, {"max_idle": 0}, 4),
    (op_borrow, {}, 6),
    (op_borrow, {"good": False}, 8),
    (op_failing_borrow, {}, 4),
    (op_fill, {}, 4),
    (op_clear, {}, 6),
    (op_aclose, {}, 6),
    (op_put_after_aclose, {}, 2),
]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("op", "kwargs", "awaits"), AWAITS)
def test_an_interruption_at_any_await_loses_nothing_and_keeps_nothing_half_made(aiopool, op, kwargs, awaits, how):
    assert interrupt_at_every_await(aiopool.AsyncPool, op, how, **kwargs) == awaits


def naive(aiopool, **methods):
    """An async pool with some methods as one might write them first."""
    return type("Naive", (aiopool.AsyncPool,), methods)


async def _put_then_reset(self, obj):
    self._store.keep(obj)
    await self._reset(obj)


async def _reset_then_put(self, obj):
    # Right, but for a cancellation: then nobody counts or closes the object.
    if await self._reset(obj) is False:
        await self._discard(obj)
    else:
        await self._keep(obj)


async def _take_all_then_close(self, *, ending=False):
    taken = []
    while (obj := self._store.take_any()) is not None:
        taken.append(obj)
    for obj in taken:
        await self._close_one(obj)
    return len(taken)


async def _take_then_wait(self):
    obj = self._store.take()
    await suspend()  # a checkpoint on every path, which some libraries ask for
    return await self._create() if obj is None else obj


async def _count_then_create(self):
    self._store.created(None)
    return await self._new()


@pytest.mark.parametrize(
    ("op", "methods"),
    [
        (op_put, {"_put": _put_then_reset}),
        (op_put, {"_put": _reset_then_put}),
        (op_clear, {"_close_idle": _take_all_then_close}),
        (op_get_that_hits, {"get": _take_then_wait}),
        (op_get_that_misses, {"_create": _count_then_create}),
    ],
    ids=lambda value: next(iter(value.values())).__name__ if isinstance(value, dict) else "",
)
def test_negative_controls_lose_objects_or_keep_half_created_ones(aiopool, op, methods):
    with pytest.raises(AssertionError, match=r"an object is|half-reset|do not add up"):
        interrupt_at_every_await(naive(aiopool, **methods), op, throw)


# --- real cancellation ---


class Blocking:
    """Callbacks of which one await, the one numbered `at`, lasts until it is cancelled; the others are checkpoints."""

    def __init__(self, at):
        self.ledger = Ledger()
        self.left = at
        self.reached = anyio.Event()

    async def wait(self):
        self.left -= 1
        if self.left == -1:
            self.reached.set()
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()

    async def new(self):
        thing = Thing()
        await self.wait()
        await self.wait()
        self.ledger.made.append(thing)
        return thing

    async def reset(self, thing):
        self.ledger.dirty.add(thing)
        await self.wait()
        await self.wait()
        self.ledger.dirty.discard(thing)

    async def close(self, thing):
        self.ledger.closing.append(thing)
        await self.wait()
        await self.wait()
        self.ledger.closed.append(thing)


async def _work(pool, blocking, hands):
    """Uses all there is: two blocks, one of which fails, a put over the bound, and the end."""
    async with pool.borrow() as thing:
        hands.append(thing)
        try:
            await blocking.wait()
        finally:
            hands.remove(thing)
    with contextlib.suppress(ZeroDivisionError):
        async with pool.borrow():
            raise ZeroDivisionError
    await pool.fill(1)
    hands.append(await pool.get())
    hands.append(await pool.get())
    while hands:
        await pool.put(hands.pop())
    await pool.aclose()


# What `_work` awaits; the last test of the row sees to it that the number is right.
WAITS = 19


@pytest.mark.anyio
@pytest.mark.parametrize("at", range(WAITS + 1))
async def test_a_cancelled_task_loses_nothing_and_keeps_nothing_half_made(aiopool, at):
    blocking = Blocking(at)
    pool = aiopool.AsyncPool(blocking.new, reset=blocking.reset, close=blocking.close, max_idle=1)
    hands = []
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:

            async def cancel():
                await blocking.reached.wait()
                tasks.cancel_scope.cancel()

            if at < WAITS:
                tasks.start_soon(cancel)
            await _work(pool, blocking, hands)
        assert blocking.reached.is_set() == (at < WAITS)
        check_the_books(pool, blocking.ledger, hands)
        if at == WAITS:
            assert blocking.left == 0
            assert blocking.ledger.closed == blocking.ledger.made


@pytest.mark.parametrize("at", range(WAITS))
def test_a_cancelled_asyncio_task_closes_to_the_end(aiopool, at):
    # asyncio cancels once. What is awaited after that is not cancelled again.
    async def main():
        blocking = Blocking(at)
        pool = aiopool.AsyncPool(blocking.new, reset=blocking.reset, close=blocking.close, max_idle=1)
        hands = []
        task = asyncio.create_task(_work(pool, blocking, hands))
        await blocking.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        check_the_books(pool, blocking.ledger, hands)
        # All but the one whose close was cancelled itself.
        assert len(blocking.ledger.closing) - len(blocking.ledger.closed) <= 1

    asyncio.run(main())


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


def test_two_tasks_that_miss_at_the_same_time_both_make_an_object(aiopool):
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


def test_nothing_in_use_keeps_others_waiting(aiopool):
    # While one put is in its reset, and one get in its new, others get and put.
    ledger = Ledger()
    pool = aiopool.AsyncPool(ledger.new, reset=ledger.reset)
    a, b = result_of(pool.get()), result_of(pool.get())
    slow_put, slow_get = pool.put(a), pool.get()
    assert not step(slow_put)
    assert not step(slow_get)
    assert finish(pool.put(b)) == (None, 2)
    assert finish(pool.get()) == (b, 0)
    result_of(slow_put)
    assert result_of(slow_get) is ledger.made[2]


class Opening:
    """An object that is awaited to be ready, as aiosqlite's connection is."""

    def __init__(self):
        self.open = False

    def __await__(self):
        yield
        self.open = True
        return self


def test_whatever_can_be_awaited_is_awaited(aiopool):
    pool = aiopool.AsyncPool(Opening, reset=lambda thing: Opening())
    thing = result_of(pool.get())
    assert thing.open
    assert finish(pool.put(thing)) == (None, 1)
    assert result_of(pool.get()) is thing


@pytest.mark.anyio
async def test_plain_callbacks_do(aiopool):
    closed = []
    pool = aiopool.AsyncPool(bytearray, reset=lambda buffer: len(buffer) < 3, close=closed.append)
    async with pool.borrow() as buffer:
        buffer += b"too long"
    assert (closed, pool.stats().idle) == ([b"too long"], 0)
    async with pool.borrow() as buffer:
        buffer += b"ok"
    assert await pool.get() is buffer


@pytest.mark.anyio
async def test_new_that_raises_leaves_the_pool_as_it_was(aiopool):
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
async def test_what_is_put_over_max_idle_is_closed(aiopool):
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


def test_two_tasks_that_enter_one_borrow_at_the_same_time_are_told(aiopool):
    ledger = Ledger()
    pool = aiopool.AsyncPool(ledger.new)
    borrow = pool.borrow()
    first, second = borrow.__aenter__(), borrow.__aenter__()
    assert not step(first)
    with pytest.raises(RuntimeError, match="call borrow"):
        step(second)
    assert result_of(first) is ledger.made[0]
    assert len(ledger.made) == 1


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
        # One object for each loop: nothing is private, or it would be out of reach here.
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
async def test_after_aclose_nothing_can_be_got(aiopool):
    pool = aiopool.AsyncPool(Thing, name="links")
    await pool.aclose()
    with pytest.raises(RuntimeError, match=r"'links'.* was closed by aclose\(\)"):
        await pool.get()
    with pytest.raises(RuntimeError, match="closed"):
        await pool.fill(1)
    with pytest.raises(RuntimeError, match="closed"):
        async with pool.borrow():
            pass


def test_what_is_in_the_making_when_the_pool_is_closed_is_closed_when_it_comes_back(aiopool):
    ledger = Ledger()
    pool = aiopool.AsyncPool(ledger.new, reset=ledger.reset, close=ledger.close)
    mine = result_of(pool.get())
    slow_get, slow_put, slow_fill = pool.get(), pool.put(mine), pool.fill(1)
    for coroutine in slow_get, slow_put, slow_fill:
        assert not step(coroutine)
    result_of(pool.aclose())
    thing = result_of(slow_get)
    result_of(slow_put)
    result_of(slow_fill)
    assert set(ledger.closed) == set(ledger.made) - {thing}
    result_of(pool.put(thing))
    assert set(ledger.closed) == set(ledger.made)
    check_the_books(pool, ledger, [])


@pytest.mark.parametrize("reset", [None, lambda thing: None])
def test_a_put_that_another_threads_aclose_overtakes_is_closed_all_the_same(aiopool, reset):
    closed = []
    pool = aiopool.AsyncPool(Thing, close=closed.append, reset=reset)
    thing = result_of(pool.get())
    inner = pool._store

    class Overtaken:
        def __getattr__(self, name):
            return getattr(inner, name)

        def keep(self, obj):
            result_of(pool.aclose())  # after put looked whether the pool is closed, and before the object is idle
            return inner.keep(obj)

    pool._store = Overtaken()
    result_of(pool.put(thing))
    assert closed == [thing]


@pytest.mark.anyio
async def test_one_close_that_fails_does_not_keep_the_others_from_being_closed(aiopool):
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


def test_a_cancellation_after_closes_that_failed_is_still_one_and_leaves_the_rest_idle(aiopool):
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
    # A warning that a coroutine was never awaited would be an error here.
    for close in (Ledger().close, [].append):
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


def test_loops_at_work_at_the_same_time_lose_nothing(aiopool):
    ledger = Ledger()

    async def new():
        await asyncio.sleep(0)
        ledger.made.append(thing := Thing())
        return thing

    async def close(thing):
        await asyncio.sleep(0)
        ledger.closing.append(thing)

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
    check_the_books(pool, ledger, [])
    asyncio.run(pool.aclose())
    assert len(ledger.closing) == len(set(ledger.closing)) == len(ledger.made)


# --- the pool itself ---


@pytest.mark.anyio
async def test_what_cleanup_cycles_drop_is_not_closed(aiopool):
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


def test_it_is_one_of_the_pools_until_it_is_no_longer_referenced(aiopool):
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
def test_what_must_be_callable(aiopool, what):
    with pytest.raises(TypeError, match=rf"{what} must be callable.*, not 3"):
        aiopool.AsyncPool(**{"new": Thing, what: 3})
    with pytest.raises(TypeError, match="new must be callable, not None"):
        aiopool.AsyncPool(None)
