"""Views that a garbage collection, an exception or the end of a thread drops: their blocks come back once."""

import asyncio
import gc
import threading

import pytest
from children import run_program
from garbage import seen_by_finalizers
from loops import in_thread, loop_thread, on_a_loop
from shared import FREE_THREADED, KIB, MIB


@pytest.mark.parametrize("generation", [0, 2])
def test_a_finalizer_in_the_same_garbage_still_sees_the_bytes(aiopool, generation):
    pool = aiopool.BufferPool()
    assert not any(b"B" in seen for seen in seen_by_finalizers(pool, generation))
    assert pool.stats().bytes_in_use == 0
    assert len(pool.acquire(1000)) == 1000


@pytest.mark.parametrize("generation", [0, 2])
def test_with_a_pool_that_puts_in_a_finalizer_it_sees_other_bytes(child_env, generation):
    assert run_program("put_by_finalizer.py", child_env, arguments=[str(generation)]) == "True\n"


def test_a_finalizer_may_resurrect_a_view(aiopool):
    pool = aiopool.BufferPool()
    kept = []

    class Resurrects:
        def __del__(self):
            kept.append(self.view)

    saver = Resurrects()
    saver.itself, saver.view = saver, pool.acquire(1000)
    saver.view[:] = b"A" * 1000
    del saver
    gc.collect()
    held = [pool.acquire(1000) for _ in range(3)]
    for each in held:
        each[:] = b"B" * 1000
    assert bytes(kept[0]) == b"A" * 1000
    del each
    held.clear()
    kept.clear()
    gc.collect()
    assert pool.stats().bytes_idle <= 4 * KIB
    for _ in range(3):
        for each in [pool.acquire(1000) for _ in range(5)]:
            each[:] = b"C" * 1000


@pytest.mark.parametrize("wipe", [False, True], ids=["as it is", "wiping"])
def test_a_view_in_a_cycle_comes_back(reusing, wipe):
    """The collector also clears the inner view that CPython puts between an exporter and its views."""
    pool = reusing.BufferPool(wipe=wipe)
    for turn in range(10):
        for count in (1, 3):
            cycle = [pool.acquire(1000) for _ in range(count)]
            cycle += [cycle, *(view[:] for view in cycle)]
            assert not (wipe and any(map(any, cycle[:count])))
            for view in cycle[:count]:
                view[:] = bytes([turn]) * 1000
            del cycle, view
            assert pool.stats().bytes_in_use == count * KIB
            gc.collect(0)
            assert pool.stats().bytes_in_use == 0
    assert pool.stats().served == 40
    # At most three are in use at a time. On free-threaded builds each collection is a cleanup cycle, so two of them are
    # retired while one is in use.
    assert pool.stats().created == (1 + 2 * 10 if FREE_THREADED else 3)


def test_blocks_that_are_freed_leave_nothing_behind(reference):
    """First their release notes that they came back, and then their finalizer does."""
    known = reference._core.block.Content._size_classes
    before = len(known)
    pool = reference.BufferPool(max_idle_bytes=0)
    for _ in range(10):
        pool.acquire(1000)
    assert len(known) == before
    assert pool._budget.in_use == 0


def test_pool_and_views_in_one_cycle(aiopool):
    class App:
        def __init__(self):
            self.itself = self
            self.pool = aiopool.BufferPool()
            self.views = [self.pool.acquire(n) for n in (10, 5000, 100, 17 * MIB)]
            self.pool.acquire(10)

        def __del__(self):
            for view in self.views:
                view[0] = 1
                self.views = [*self.views, self.pool.acquire(10)]
            log.append(self.pool.stats().bytes_in_use)

    log = []
    for _ in range(3):
        App()
    gc.collect()
    assert len(log) == 3


def test_a_view_held_by_an_exception_that_is_freed(reusing):
    """The last view is dropped while its thread is raising. The exception arrives unchanged."""
    pool = reusing.BufferPool()

    def fail(view):
        raise LookupError(len(view))

    async def main():
        for n in (10, 5000):
            with pytest.raises(LookupError, match=str(n)):
                fail(pool.acquire(n))

    asyncio.run(main())
    in_thread(asyncio.run, main())


def test_a_view_dropped_by_c_code_that_is_raising(reusing):
    """`list.sort` frees the results of its key function while the exception is set."""
    pool = reusing.BufferPool()
    turns = iter(range(10))

    def key(item):
        if next(turns) == 5:
            raise LookupError
        return pool.acquire(10)

    for run in (lambda work: work(), on_a_loop):
        turns = iter(range(10))
        with pytest.raises(LookupError):
            run(lambda: sorted(range(10), key=key))
        assert (pool.stats().bytes_in_use, pool.stats().bytes_idle) == (0, 5 * KIB)


# --- threads that end ---


def test_a_view_in_thread_local_storage(reusing):
    pool = reusing.BufferPool()
    local = threading.local()

    async def on_loop():
        keep()

    def keep():
        local.view = pool.acquire(1000)
        local.view[:] = b"A" * 1000

    for run in (keep, lambda: asyncio.run(on_loop())):
        for _ in range(3):
            in_thread(run)
    gc.collect()
    assert (pool.stats().bytes_in_use, pool.stats().bytes_idle) == (0, pool.stats().created * KIB)
    assert pool.acquire(1000)[0] == ord("A")


def test_views_dropped_in_each_kind_of_thread(reusing):
    pool = reusing.BufferPool()

    def box():
        return [pool.acquire(1000)]

    with loop_thread() as one, loop_thread() as two:
        boxes = [maker(box) for maker in (one.call, two.call, in_thread) for _ in range(3)]
        for index, dropper in enumerate((two.call, in_thread, one.call) * 3):
            dropper(boxes[index].clear)
        stats = pool.stats()
    assert (stats.bytes_in_use, stats.bytes_idle) == (0, stats.created * KIB)
