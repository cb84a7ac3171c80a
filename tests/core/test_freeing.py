"""Nothing can hold up the freeing of retired objects."""

import asyncio
import gc
import sys
import threading
import time
import weakref
from math import inf

import pytest
from interrupts import PACKAGE, Interrupted, at_every_bytecode, core_files, raise_in_every_gap_on_a_loop
from loops import PATIENCE, RunsAtOnce, all_freed, loop_thread, on_a_loop
from shared import FREE_THREADED, Thing, no_other_pools


def filled(aiopool, count):
    """A pool with `count` idle objects, and weak references to them."""
    pool = aiopool.Pool()
    things = [Thing() for _ in range(count)]
    refs = [weakref.ref(thing) for thing in things]
    while things:
        pool.put(things.pop())
    return pool, refs


def alive(refs):
    return sum(ref() is not None for ref in refs)


def in_time(refs):
    """Wait until all is freed. Sleeps in between, because without a GIL the thread that created an object frees it."""
    end = time.monotonic() + PATIENCE
    while alive(refs) and time.monotonic() < end:
        time.sleep(0.001)
    return alive(refs) == 0


@pytest.fixture
def stopped(aiopool):
    """References to objects that a loop was to free: it stopped, without being closed, with a slice in its queue."""

    async def clear():
        pool, refs = filled(aiopool, 20_000)
        pool.clear()
        return refs

    with asyncio.Runner() as runner:
        refs = runner.run(clear())
        assert alive(refs)
        yield refs


def test_a_stopped_loop_with_a_posted_slice_does_not_hold_up_freeing(aiopool, stopped):
    """If no loop is running, the next code that retires objects frees the whole queue."""
    pool, refs = filled(aiopool, 200)
    pool.clear()
    assert alive(refs) == alive(stopped) == 0


def test_a_garbage_collection_frees_the_objects_left_by_a_stopped_loop(aiopool, stopped):
    time.sleep(aiopool._core.freeing.PATIENCE)
    gc.collect(0)
    assert alive(stopped) == 0


def test_another_live_loop_takes_over_from_a_loop_that_stopped(aiopool):
    async def clear():
        pool, refs = filled(aiopool, 20_000)
        pool.clear()
        return refs

    with loop_thread() as other:
        other.call(aiopool.current_processor)
        with asyncio.Runner() as runner:
            refs = runner.run(clear())
            assert in_time(refs)


def test_each_other_loop_is_ready_to_take_over_until_all_is_freed(aiopool, monkeypatch):
    """The first one to run may be any of them. Afterwards none has a timer any more, and so wakes for nothing."""
    monkeypatch.setattr(aiopool._core.freeing, "PATIENCE", 600.0)
    blocked, release = threading.Event(), threading.Event()

    def block():
        blocked.set()
        release.wait(PATIENCE)

    with no_other_pools(aiopool), loop_thread() as first, loop_thread() as second, loop_thread() as third:
        processors = [loop.call(aiopool.current_processor) for loop in (first, second, third)]
        first.loop.call_soon_threadsafe(block)
        blocked.wait(PATIENCE)
        try:
            pool, refs = filled(aiopool, 200)
            start = time.monotonic()
            pool.clear()
            assert alive(refs) == 200
            for loop, each in zip((second, third), processors[1:], strict=True):
                loop.call(lambda: None)  # its timer is set by now
                assert start + 600 <= each.wakes_at <= time.monotonic() + 600
            assert start + 600 <= aiopool._core.freeing._overdue_at() <= time.monotonic() + 600
        finally:
            release.set()
        end = time.monotonic() + PATIENCE
        while (alive(refs) or any(each.wakes_at < inf for each in processors)) and time.monotonic() < end:
            time.sleep(0.001)
        assert alive(refs) == 0
        assert [each.wakes_at for each in processors] == [inf] * 3


def test_a_garbage_collection_during_freeing_does_not_free_inside_it(aiopool):
    """Off-loop, where everything is freed at once; otherwise each finalizer that starts a collection nests deeper."""
    freeing, free_until = aiopool._core.freeing, aiopool._core.freeing.free_until
    depth, depths = 0, []

    class Collects:
        def __del__(self):
            gc.collect(0)

    def counted(deadline):
        nonlocal depth
        depth += 1
        depths.append(depth)
        try:
            return free_until(deadline)
        finally:
            depth -= 1

    pools = [aiopool.Pool() for _ in range(5)]
    for pool in pools:
        pool.put(Collects())
        freeing.retire(pool._store.clear())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freeing, "free_until", counted)
        patch.setattr(freeing, "_last_progress", -inf)
        patch.setattr(freeing, "PATIENCE", 600)  # no collection takes so long
        freeing.free_queued()
    # On free-threaded builds each collection is a cleanup cycle, which frees. A collection inside that does nothing.
    assert max(depths) == (2 if FREE_THREADED else 1)
    assert not freeing._queue


def test_a_blocked_loop_does_not_hold_up_the_others(aiopool):
    """One loop blocks, a worker thread clears a pool, and the other loop frees the objects."""
    blocked, release = threading.Event(), threading.Event()

    def block():
        blocked.set()
        release.wait(PATIENCE)

    with loop_thread() as first, loop_thread() as second:
        for loop in first, second:
            loop.call(aiopool.current_processor)
        first.loop.call_soon_threadsafe(block)
        blocked.wait(PATIENCE)
        try:
            pool, refs = filled(aiopool, 200)
            pool.clear()
            assert in_time(refs)
            pool, refs = second.call(filled, aiopool, 200)
            second.call(pool.clear)
            assert in_time(refs)
        finally:
            release.set()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python removes a trace function that raises")
# An exception in the finalizer of a dropped slice is reported as unraisable.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("operation", ["cleanup", "clear", "stats", "slice"])
def test_an_exception_between_any_two_bytecodes_disables_nothing(aiopool, operation):
    """The exception comes from a signal handler, for example."""
    freeing = aiopool._core.freeing

    def scenario():
        pool, refs = filled(aiopool, 3)
        if operation == "slice":
            freeing.retire(pool._store.clear())

        def interrupted():
            try:
                {
                    "cleanup": aiopool.cleanup,
                    "clear": pool.clear,
                    "stats": pool.stats,
                    "slice": lambda: freeing._Slice(aiopool.current_processor().loop)(),
                }[operation]()
            except Interrupted:
                pass

        def check(result, intrusion):
            cycles = pool.stats().cycles
            for _ in range(3):
                aiopool.cleanup()
            assert pool.stats().cycles == cycles + 3
            later, more = filled(aiopool, 3)
            later.clear()
            freeing.free_until(float("inf"))
            # The private object of a shard that was just being freed lives as long as the frames of the exception. The
            # interpreter keeps these for a while if it was raised in the handler of another exception.
            assert alive(refs) <= (1 if operation == "slice" else 0)
            assert alive(more) == 0
            assert not freeing._queue
            # If pools are only freed by a garbage collection, those of all gaps would accumulate.
            aiopool._core.registry._pools.clear()

        return interrupted, raises, check

    def raises():
        raise Interrupted

    with no_other_pools(aiopool):
        gaps = on_a_loop(lambda: at_every_bytecode(scenario, files=PACKAGE, into=True))
    assert gaps > (5 if operation == "stats" else 50)


# An exception in the finalizer of a dropped slice is reported as unraisable.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python removes a trace function that raises")
@pytest.mark.parametrize("operation", ["slice", "clear", "cleanup"])
def test_after_an_exception_anywhere_the_next_clear_frees_everything(reference, monkeypatch, operation):
    """It also frees what the interrupted operation retired; with only one loop, and without a garbage collection."""
    freeing = reference._core.freeing
    monkeypatch.setattr(freeing, "SLICE", 0.0)
    monkeypatch.setattr(freeing, "SHARE", 0.0)
    monkeypatch.setattr(reference._core.registry, "_pools", {})

    def set_up():
        pool, refs = reference.Pool(idle_timeout=None), []

        def fill(count):
            things = [Thing() for _ in range(count)]
            refs.extend(map(weakref.ref, things))
            while things:
                pool.put(things.pop())

        async def operate():
            fill(5)
            if operation == "slice":
                freeing.retire(pool._store.clear())
                freeing._post_slice(reference.current_processor(), reference.current_processor().loop)
                await asyncio.sleep(0)
            else:
                {"clear": pool.clear, "cleanup": reference.cleanup}[operation]()

        async def clear_again():
            fill(3)
            pool.clear()
            async with asyncio.timeout(PATIENCE):
                while alive(refs):
                    await asyncio.sleep(0)

        return operate, clear_again

    gaps = raise_in_every_gap_on_a_loop(set_up, files=core_files("freeing", "posted"))
    assert gaps > (5 if operation == "cleanup" else 50)


INTERRUPTED = [
    ("posted", "Posted"),
    ("timers", "_Firing"),
    ("processor", "_Ownership"),
    ("bound_loops", "_Tie"),
]


@pytest.mark.parametrize(("module", "name"), INTERRUPTED)
def test_an_object_whose_creation_was_interrupted_is_finalized_silently(aiopool, module, name):
    """A signal handler raised in `__init__`, so its attributes are missing."""
    interrupted = getattr(getattr(aiopool._core, module), name)
    interrupted.__new__(interrupted).__del__()


def test_freeing_does_not_wait_for_a_loop_that_did_not_take_a_slice(aiopool, monkeypatch):
    """A run of trio that is over may still look alive until a post fails. The second clear is not held up either."""

    class Over(RunsAtOnce):
        def call_soon(self, callback):
            return False

    async def main():
        processor = aiopool.current_processor()
        monkeypatch.setattr(processor, "loop", Over(processor.loop))
        for _ in range(2):
            pool, refs = filled(aiopool, 3)
            pool.clear()
            assert alive(refs) == 0

    asyncio.run(main())


def test_an_exception_while_a_slice_is_posted_reaches_the_caller(aiopool, monkeypatch):
    """Ctrl-C must not be lost. The next clear frees everything."""

    class Raises(RunsAtOnce):
        def call_soon(self, callback):
            raise Interrupted

    async def main():
        processor = aiopool.current_processor()
        pool, refs = filled(aiopool, 3)
        with monkeypatch.context() as patch:
            patch.setattr(processor, "loop", Raises(processor.loop))
            with pytest.raises(Interrupted) as raised:
                pool.clear()
        raised.value.with_traceback(None)
        pool.clear()
        await all_freed(aiopool)
        assert alive(refs) == 0

    asyncio.run(main())


def test_a_slice_that_runs_before_the_post_returns_is_not_mistaken_for_dropped(aiopool, monkeypatch):
    """A slice that is marked as waiting only after it was posted would stay so, and its finalizer would free again."""
    freeing = aiopool._core.freeing
    calls = []

    async def main():
        processor = aiopool.current_processor()
        assert freeing._post_slice(processor, RunsAtOnce(processor.loop))

    monkeypatch.setattr(freeing, "free_queued", lambda: calls.append(1))
    asyncio.run(main())
    assert len(calls) == 1  # only the slice's own, at its end
