"""`isolated`, and the fixture `aiopool_isolated` in suites that pytest runs."""

import asyncio
import contextlib
import threading
import weakref

import pytest
from loops import loop_thread
from shared import Thing


def test_isolated_pools_are_empty_and_come_back(aiopool):
    pool, reset = aiopool.Pool(object), object()

    async def main():
        for thing in things:
            pool.put(thing)
        before = pool.stats()
        with aiopool.testing.isolated():
            assert pool.stats().idle == pool.stats().puts == 0
            assert pool.get() not in things
            pool.put(reset)
            with aiopool.testing.isolated():
                assert pool.get() is not reset
            assert pool.get() is reset
            pool.put(reset)
        assert pool.stats() == before
        assert {pool.get() for _ in things} == things

    things = {object() for _ in range(3)}
    asyncio.run(main())


def test_pools_created_in_isolation_keep_nothing_from_it(aiopool):
    with aiopool.testing.isolated():
        pool = aiopool.Pool(bytearray)
        pool.fill(3)
    assert pool.stats().idle == 0


def test_cycles_do_not_reach_objects_set_aside(aiopool):
    pool = aiopool.Pool(bytearray)
    pool.fill(1)
    with aiopool.testing.isolated():
        for _ in range(3):
            aiopool.cleanup()
    assert (pool.stats().idle, pool.stats().cycles) == (1, 0)


def test_objects_that_are_got_before_and_put_during_isolation_or_the_reverse(aiopool):
    pool = aiopool.Pool(object)
    lent = pool.get()
    with aiopool.testing.isolated():
        lent_inside = pool.get()
        pool.put(lent)  # gone with the rest
    assert pool.stats().idle == 0
    pool.put(lent_inside)
    assert pool.get() is lent_inside


def test_a_processor_of_its_own_does_not_isolate_a_test(reference):
    # The negative control: bind another processor in the context, as the pin does.
    pool = reference.Pool(object)
    theirs = [object() for _ in range(3)]

    async def main():
        for thing in theirs:
            pool.put(thing)
        own = reference._core.processor.Processor(threading.get_ident())
        own.id = 1000
        own.loop = reference._core.processor.pin().loop
        reference._core.processor.pinned.set(own)
        stolen = pool.get()
        # And a worker thread has no processor that could be replaced.
        return stolen, await asyncio.to_thread(pool.get)

    stolen, in_a_thread = asyncio.run(main())
    assert stolen in theirs
    assert in_a_thread in theirs


def test_isolation_includes_loops_in_other_threads(aiopool):
    pool = aiopool.Pool(object)
    with loop_thread() as other:
        things = {other.call(pool.get) for _ in range(3)}
        for thing in things:
            other.call(pool.put, thing)
        with aiopool.testing.isolated():
            assert other.call(pool.get) not in things
        assert {other.call(pool.get) for _ in things} == things


def test_a_loop_that_ends_during_isolation_drops_its_objects_set_aside(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)

    async def fill():
        pool.fill(2)
        pool.put(kept := pool.get())
        return weakref.ref(kept)

    with contextlib.closing(asyncio.new_event_loop()) as lives, contextlib.closing(asyncio.new_event_loop()) as ends:
        refs = [loop.run_until_complete(fill()) for loop in (ends, lives)]
        aiopool.cleanup()
        refs += [loop.run_until_complete(fill()) for loop in (ends, lives)]
        with aiopool.testing.isolated():
            ends.close()
        assert [ref() is None for ref in refs] == [True, False, True, False]
        assert pool.stats().idle == 4


def test_blocks_that_overlap_are_an_error(aiopool):
    first, second = aiopool.testing.isolated(), aiopool.testing.isolated()
    first.__enter__()
    second.__enter__()
    with pytest.raises(RuntimeError, match="overlap: only one test at a time"):
        first.__exit__(None, None, None)
    second.__exit__(None, None, None)


def test_isolation_of_buffer_pools_and_async_pools(aiopool):
    buffers, objects = aiopool.BufferPool(), aiopool.AsyncPool(bytearray)
    kept = buffers.acquire(10)
    buffers.acquire(10)  # not kept in Python on 3.11
    buffers.acquire(1 << 25)
    asyncio.run(objects.fill(3))
    before = buffers.stats(), objects.stats()
    with aiopool.testing.isolated():
        assert (buffers.stats().served, buffers.stats().oversize.served, buffers.stats().bytes_idle) == (0, 0, 0)
        assert buffers.stats().bytes_in_use == 1024
        assert (objects.stats().idle, objects.stats().created) == (0, 0)
        buffers.acquire(20)
        buffers.acquire(1 << 25)
        asyncio.run(objects.fill(1))
        assert (buffers.stats().served, buffers.stats().oversize.served, objects.stats().idle) == (2, 1, 1)
    after = buffers.stats(), objects.stats()
    # Blocks that are set aside stay idle, so a peak during the isolation includes them.
    assert (after[0]._replace(peak_idle=before[0].peak_idle), after[1]) == before
    del kept
    assert buffers.stats().bytes_in_use == 0


# --- in suites ---


def test_an_isolated_test_sees_empty_pools_and_leaves_no_trace(suite):
    suite.write(test_isolated="sees_empty_pools", test_then="sees_full_pools")
    suite.run_apart(passed=16)


def test_without_isolation_tests_see_objects_of_other_tests(suite, monkeypatch):
    monkeypatch.setenv("ISOLATED", "no")
    suite.write(test_isolated="sees_empty_pools")
    suite.run(passed=1, failed=14)
