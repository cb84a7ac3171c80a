"""Every operation and every error path of a pool leaks nothing."""

import asyncio
import contextlib
import contextvars
import gc

from children import off_loop
from leaks import check_for_leaks

import aiopool

things = [object() for _ in range(4)]
types = [
    aiopool.Pool,
    aiopool._core.shard.Shard,
    aiopool._core.shard.Counters,
    aiopool._core.processor.Processor,
    aiopool._pool.PoolBase,
    aiopool._pool.Borrow,
]
gc.disable()


def raising(error):
    raise error


def caught(function, *args):
    try:
        function(*args)
    except (ValueError, RuntimeError, TypeError):
        return
    raise AssertionError("nothing was raised")


def new_that_enters():
    if entering:
        entering.pop().__enter__()
    return things[0]


pool, empty, fresh = aiopool.Pool(), aiopool.Pool(), aiopool.Pool(lambda: things[0])
rejecting = aiopool.Pool(reset=lambda obj: False)
failing = aiopool.Pool(reset=lambda obj: raising(ValueError()))
broken = aiopool.Pool(lambda: raising(ValueError()))
full = aiopool.Pool(max_idle=0)
entered = aiopool.Pool(new_that_enters)
entering = []
unused = object()


class Own(aiopool.Pool):
    def get(self):
        return things[0]

    def put(self, obj):
        pass


own = Own()


def private():
    pool.put(pool.get())


def shared():
    held = [pool.get(), pool.get(), pool.get()]
    for obj in held:
        pool.put(obj)


def miss():
    empty.get()


def created():
    fresh.get()


def new_raises():
    caught(broken.get)


def put_none():
    pool.put(None)


def double_put():
    empty.put(things[0])
    caught(empty.put, things[0])
    empty.get()


def reset_rejects():
    rejecting.put(things[0])


def reset_raises():
    caught(failing.put, things[0])


def max_idle_rejects():
    full.put(things[0])


def borrow():
    with pool.borrow():
        pass


def borrow_of_a_subclass():
    with own.borrow():
        pass


def borrow_nothing():
    with empty.borrow():
        pass


def borrow_unused():
    pool.borrow()


def borrow_raises():
    try:
        with fresh.borrow():
            raise ValueError
    except ValueError:
        pass


async def borrow_async():
    async with pool.borrow():
        pass


async def borrow_async_raises():
    try:
        async with fresh.borrow():
            raise ValueError
    except ValueError:
        pass


def borrow_never_awaited():
    fresh.borrow().__aenter__().close() if aiopool.implementation == "python" else fresh.borrow().__aenter__()


def borrow_on_a_stack():
    with contextlib.ExitStack() as stack:
        stack.enter_context(pool.borrow())


def borrow_dropped_inside():
    fresh.borrow().__enter__()


def borrow_entered_twice():
    with pool.borrow() as _, fresh.borrow() as __:
        block = fresh.borrow()
        block.__enter__()
        caught(block.__enter__)


def borrow_entered_by_its_own_new():
    block = entered.borrow()
    entering.append(block)
    block.__enter__()
    block.__exit__(None, None, None)
    entered.get()


def borrow_called_badly():
    caught(pool.borrow().__exit__, None)


def steal():
    off_loop(empty.put, things[1])
    assert empty.get() is things[1]


def victim():
    empty.put(things[1])
    empty._store.rotate()
    assert empty.get() is things[1]
    empty._store.rotate()
    empty._store.rotate()


def fill_and_clear():
    fresh.fill(3)
    assert fresh.clear() == 3


async def clean_up():
    fresh.fill(3)
    aiopool.cleanup()
    aiopool.cleanup()
    await asyncio.sleep(0)


def stats():
    pool.stats()


def inspect():
    (
        pool._store.primary,
        pool._store.shards(),
        pool._store.counts(),
        repr(pool),
        [shard.private for shard in pool._store.primary.values()],
    )


def pin_anew():
    contextvars.Context().run(aiopool.current_processor)


def get_in_a_new_context():
    contextvars.Context().run(lambda: pool.put(pool.get()))


def get_off_loop():
    off_loop(empty.get)


def a_new_pool():
    short = aiopool.Pool()
    short.put(things[0])
    short.put(things[1])
    short.get()


def bad_arguments():
    caught(pool.put)
    caught(pool.get, 1)


def refill():
    for kept in (pool, fresh, empty, entered):
        kept.clear()
    for thing in things:
        pool.put(thing)


OPERATIONS = [
    private,
    shared,
    miss,
    created,
    new_raises,
    put_none,
    double_put,
    reset_rejects,
    reset_raises,
    max_idle_rejects,
    borrow,
    borrow_of_a_subclass,
    borrow_nothing,
    borrow_unused,
    borrow_raises,
    borrow_async,
    borrow_async_raises,
    borrow_never_awaited,
    borrow_on_a_stack,
    borrow_dropped_inside,
    borrow_entered_twice,
    borrow_entered_by_its_own_new,
    borrow_called_badly,
    steal,
    victim,
    fill_and_clear,
    clean_up,
    stats,
    inspect,
    pin_anew,
    get_in_a_new_context,
    get_off_loop,
    a_new_pool,
    bad_arguments,
]

asyncio.run(check_for_leaks(OPERATIONS, watched=(*things, unused, *types), restore=refill))
print("ok")
