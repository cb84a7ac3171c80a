"""`AsyncPool` with `loop_bound=True`: idle objects are closed on their loop, at its end at the latest."""

import asyncio
import gc

import anyio
import anyio.lowlevel
import pytest
from loops import loop_thread
from shared import Thing


def async_pool(aiopool, begun, done, **kwargs):
    async def new():
        await anyio.lowlevel.checkpoint()
        return Thing()

    async def close(thing):
        begun.append(thing)
        await anyio.lowlevel.checkpoint()
        done.append(thing)

    return aiopool.AsyncPool(new, close=close, **kwargs)


async def fill(pool, n):
    await pool.fill(n)


def test_an_async_pool_closes_the_idle_objects_of_a_loop_at_its_end(aiopool, run, anyio_backend, bound):
    begun, done = [], []
    pools = [async_pool(aiopool, begun, done, loop_bound=bound) for _ in range(2)]

    async def main():
        for pool in pools:
            await pool.fill(2)

    run(main)
    assert len(begun) == len(set(begun)) == (4 if bound else 0)
    # At its end trio allows no waiting: there, `close` is called, and cancelled if it waits.
    assert len(done) == (4 if bound and anyio_backend[0] == "asyncio" else 0)
    assert [pool.stats().idle for pool in pools] == ([0, 0] if bound else [2, 2])
    if bound:
        assert aiopool._core.bound_loops.LoopRecord._all == {}


def test_objects_put_while_their_loop_ends_are_closed_at_once(aiopool):
    begun, done, generators = [], [], []
    pool = async_pool(aiopool, begun, done, loop_bound=True)

    async def hold():
        thing = await pool.get()
        try:
            yield
        finally:
            # Meanwhile the loop shuts down its other async generators.
            for _ in range(5):
                await asyncio.sleep(0)
            await pool.put(thing)

    async def main():
        generators.append(hold())
        await anext(generators[0])

    asyncio.run(main())
    assert len(done) == len(begun) == 1
    assert pool.stats().idle == 0


def test_a_loop_that_is_only_closed_closes_nothing(aiopool):
    begun, done = [], []
    pool = async_pool(aiopool, begun, done, loop_bound=True)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(pool.fill(2))
    loop.close()
    assert begun == []
    assert pool.stats().idle == 0


def test_aclose_closes_the_objects_of_this_loop(aiopool):
    begun, done = [], []
    pool = async_pool(aiopool, begun, done, loop_bound=True)
    with loop_thread() as other:
        other.run(pool.fill(2))

        async def main():
            await pool.fill(3)
            await pool.aclose()
            return len(done), pool.stats().idle

        assert asyncio.run(main()) == (3, 2)
        other.run(pool.aclose())
        assert (len(done), pool.stats().idle) == (5, 0)


def test_a_close_that_fails_at_the_end_is_reported_and_the_others_are_closed(aiopool):
    closed, reports = [], []

    async def close(thing):
        closed.append(thing)
        raise OSError("cannot close")

    pools = [aiopool.AsyncPool(Thing, close=close, loop_bound=True) for _ in range(2)]

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["exception"]))
        for pool in pools:
            await pool.fill(1)

    asyncio.run(main())
    assert len(closed) == 2
    (report,) = reports
    assert isinstance(report, ExceptionGroup)


def test_an_async_pool_freed_before_its_loop_leaves_nothing_behind(aiopool, run):
    async def main():
        await async_pool(aiopool, [], [], loop_bound=True).fill(2)
        gc.collect()
        (record,) = aiopool._core.bound_loops.records()
        return len(record.closers), len(record.parts)

    assert run(main) == (0, 0)


def test_get_and_put_of_a_loop_bound_async_pool(aiopool, run):
    pool = aiopool.AsyncPool(Thing, loop_bound=True, max_idle=1, reset=lambda thing: None)

    async def use():
        async with pool.borrow() as one, pool.borrow() as two:
            assert one is not two
        assert pool.stats().idle == 1
        async with pool.borrow() as again:
            assert again in (one, two)
        return again

    assert run(use) is not run(use)
    with loop_thread() as own, loop_thread() as other:
        thing = own.run(pool.get())
        with pytest.raises(RuntimeError, match="belongs to another loop"):
            other.run(pool.put(thing))
        own.run(pool.put(thing))


def test_an_async_pool_neither_resets_nor_closes_objects_of_an_ended_loop(aiopool, run):
    calls = []
    pool = aiopool.AsyncPool(Thing, reset=calls.append, close=calls.append, loop_bound=True)
    thing = run(pool.get)
    run(pool.put, thing)
    assert calls == []
    assert (pool.stats().idle, pool.stats().rejected) == (0, 1)
