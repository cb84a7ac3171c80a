"""`AsyncPool`, interrupted at every await: no object is lost, and no half-finished one is kept.

First by hand, with an exception at each await, and then by real cancellations on real loops.
"""

import asyncio
import contextlib

import anyio
import anyio.lowlevel
import pytest
from awaits import Stop, Tracker, check_objects, idle_in, result_of, step, suspend, throw
from loops import PATIENCE
from shared import Thing


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
    """Prepare a pool for `op`."""
    tracker = Tracker(good=True)
    pool = make_pool(tracker.new, reset=tracker.reset, close=tracker.close, max_idle=max_idle)
    hands = []
    if op in (op_clear, op_aclose, op_get_that_hits):
        result_of(pool.fill(min(3, 3 if max_idle is None else max_idle)))
    if op in (op_put, op_put_after_aclose):
        hands.append(result_of(pool.get()))
    if op is op_put_after_aclose:
        result_of(pool.aclose())
    tracker.good = good
    return pool, tracker, hands


def throw_again_and_again(coroutine):
    """Throw `Stop` at this await and at each one that follows, as trio does with a cancelled task."""
    for _ in range(100):
        try:
            coroutine.throw(Stop())
        except Stop:
            return
    raise AssertionError("it waits for ever")


def close_it(coroutine):
    """Close `coroutine`, as the interpreter does if it will not be driven any more. It must not wait again."""
    coroutine.close()


HOW = [throw, throw_again_and_again, close_it]


def interrupt_at_every_await(make_pool, op, how, **kwargs):
    """Interrupt `op` at each of its awaits, in one run for each. Returns the number of awaits."""
    for at in range(100):
        pool, tracker, hands = set_up(make_pool, op, **kwargs)
        coroutine = op(pool, hands)
        if any(step(coroutine) for _ in range(at + 1)):
            check_objects(pool, tracker, hands)
            return at
        how(coroutine)
        # A coroutine that is closed cannot await a close, so its object is dropped without one.
        check_objects(pool, tracker, hands, async_close=how is not close_it)
        tracker.good = True
        # The pool works as before.
        if op not in (op_aclose, op_put_after_aclose):
            thing = result_of(pool.get())
            assert thing not in [*hands, *tracker.closing]
            result_of(pool.put(thing))
            assert not tracker.dirty & set(idle_in(pool))
        else:
            result_of(pool.aclose())
            assert idle_in(pool) == []
    raise AssertionError("it never ends")


# The awaits of each op: new, reset and close wait twice each.
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
def test_an_interruption_at_any_await_loses_nothing_and_keeps_nothing_half_created(aiopool, op, kwargs, awaits, how):
    assert interrupt_at_every_await(aiopool.AsyncPool, op, how, **kwargs) == awaits


def control(aiopool, **methods):
    """An async pool with some methods replaced by simpler versions: the negative controls."""
    return type("Control", (aiopool.AsyncPool,), methods)


async def _put_then_reset(self, obj):
    self._store.keep(obj)
    await self._reset(obj)


async def _reset_then_put(self, obj):
    # Correct, except after a cancellation: then the object is neither counted nor closed.
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
        interrupt_at_every_await(control(aiopool, **methods), op, throw)


# --- real cancellation ---


class Blocking:
    """Callbacks whose await number `at` lasts until it is cancelled; the other awaits are checkpoints."""

    def __init__(self, at):
        self.tracker = Tracker()
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
        self.tracker.made.append(thing)
        return thing

    async def reset(self, thing):
        self.tracker.dirty.add(thing)
        await self.wait()
        await self.wait()
        self.tracker.dirty.discard(thing)

    async def close(self, thing):
        self.tracker.closing.append(thing)
        await self.wait()
        await self.wait()
        self.tracker.closed.append(thing)


async def _work(pool, blocking, hands):
    """Use all methods: two blocks, one of which fails, a put beyond `max_idle`, and `aclose`."""
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


# The number of awaits in `_work`; the last of the parametrized tests checks it.
WAITS = 19


@pytest.mark.anyio
@pytest.mark.parametrize("at", range(WAITS + 1))
async def test_a_cancelled_task_loses_nothing_and_keeps_nothing_half_created(aiopool, at):
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
        check_objects(pool, blocking.tracker, hands)
        if at == WAITS:
            assert blocking.left == 0
            assert blocking.tracker.closed == blocking.tracker.made


@pytest.mark.parametrize("at", range(WAITS))
def test_a_cancelled_asyncio_task_closes_to_the_end(aiopool, at):
    # asyncio cancels once, and later awaits are not cancelled again.
    async def main():
        blocking = Blocking(at)
        pool = aiopool.AsyncPool(blocking.new, reset=blocking.reset, close=blocking.close, max_idle=1)
        hands = []
        task = asyncio.create_task(_work(pool, blocking, hands))
        await blocking.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        check_objects(pool, blocking.tracker, hands)
        # All except the one whose close itself was cancelled.
        assert len(blocking.tracker.closing) - len(blocking.tracker.closed) <= 1

    asyncio.run(main())
