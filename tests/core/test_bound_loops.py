"""The end of a loop: the objects bound to it are dropped with it, however it ends."""

import asyncio
import contextlib
import gc
import os
import weakref

import pytest
from children import run_program
from shared import FREE_THREADED, Slotted, Thing
from using import get, put, use


def test_idle_objects_are_dropped_with_their_loop(aiopool, run, bound):
    pool = aiopool.Pool(Thing, loop_bound=bound)
    refs = run(use, pool)
    assert [ref() is None for ref in refs] == [bound] * 2
    stats = pool.stats()
    assert (stats.idle, stats.dropped) == ((0, 2) if bound else (2, 0))
    assert aiopool._core.bound_loops.LoopRecord._all == {}


def test_the_victim_is_dropped_with_its_loop_too(aiopool, run):
    pool = aiopool.Pool(Thing, loop_bound=True)

    async def use_and_clean():
        refs = await use(pool)
        aiopool.cleanup()
        return refs + await use(pool)

    refs = run(use_and_clean)
    assert [ref() for ref in refs] == [None] * 4
    assert pool.stats().idle == 0


def test_a_loop_that_is_only_closed_has_ended(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)
    loop = asyncio.new_event_loop()
    refs = loop.run_until_complete(use(pool))
    assert pool.stats().idle == 2
    loop.close()
    assert [ref() for ref in refs] == [None] * 2


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_loop_that_was_never_closed_has_ended_when_it_is_collected(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)
    loop = asyncio.new_event_loop()
    refs = loop.run_until_complete(use(pool))
    del loop
    gc.collect()
    assert [ref() for ref in refs] == [None] * 2


def test_a_loop_whose_end_was_not_noticed_is_not_mistaken_for_another(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)
    records = aiopool._core.bound_loops.LoopRecord._all

    async def at_the_address_of_another():
        # As if this loop had the address of an ended one.
        stale._id = id(asyncio.get_running_loop())
        records[stale._id] = records.pop(id(loop))
        return pool.get()

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        thing = loop.run_until_complete(get(pool))
        loop.run_until_complete(put(pool, thing))
        stale = records[id(loop)]()
        with contextlib.closing(asyncio.new_event_loop()) as other:
            assert other.run_until_complete(at_the_address_of_another()) is not thing
        assert stale.mark.ended


def test_a_record_freed_before_it_was_tied_does_not_lock_out_its_loop(aiopool):
    """An exception can come between registering a record and tying it to its loop."""
    pool = aiopool.Pool(Thing, loop_bound=True)

    async def main():
        died = weakref.ref(Thing())
        aiopool._core.bound_loops.LoopRecord._all[id(asyncio.get_running_loop())] = died
        thing = pool.get()
        pool.put(thing)
        assert pool.get() is thing

    asyncio.run(main())


def test_pools_and_loops_that_come_and_go_leave_nothing_behind(aiopool, run):
    async def with_two_pools(kept):
        await use(aiopool.Pool(Thing, loop_bound=True))
        if FREE_THREADED:
            gc.collect()  # from 3.14 on a pool lives until then
        await use(kept)
        (record,) = aiopool._core.bound_loops.records()
        return len(record.parts), len(kept._store.shards())

    kept = aiopool.Pool(Thing, loop_bound=True)
    for _ in range(5):
        assert run(with_two_pools, kept) == (1, 1)
    assert (kept._store.shards(), kept._store.entries) == ([], {})


@pytest.mark.anyio
@pytest.mark.parametrize("make", [Thing, Slotted])
async def test_an_object_is_bound_while_it_lives_or_is_checked_out(aiopool, make):
    pool = aiopool.Pool(make, loop_bound=True)
    thing = pool.get()
    assert len(pool._store.entries) == 1
    for _ in range(3):
        pool.put(thing)
        assert len(pool._store.entries) == (1 if make is Thing else 0)
        assert pool.get() is thing
    assert len(pool._store.entries) == 1
    del thing
    assert len(pool._store.entries) == (0 if make is Thing else 1)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
@pytest.mark.parametrize("kind", ["no_pool", "loop_bound", "loop_bound_with_close"])
def test_loops_that_were_never_closed_are_collected_with_their_descriptors(child_env, kind):
    assert run_program("unclosed_loops.py", child_env, arguments=[kind]) == "ok\n"
