"""`holders()`: the places that hold views of a buffer pool, the oldest first, from samples or from all acquires."""

import gc
import sys
import threading
import time

import pytest
from loops import WHERE, loop_thread, on_a_loop
from shared import KIB, MIB


def here():
    return sys._getframe(1).f_lineno


@WHERE
def test_holders_are_listed_by_place_the_oldest_first(aiopool, where):
    pool = aiopool.BufferPool(sample_every=1)

    def handler():
        return pool.acquire(5000)

    def use():
        start = time.monotonic()
        first = pool.acquire(100)
        line = here() - 1
        held = [handler() for _ in range(3)]
        oversize = pool.acquire(17 * MIB)
        mine, handlers, large = pool.holders()
        assert mine.place == f"{__file__}:{line}, in {use.__qualname__}"
        assert (mine.views, mine.bytes, mine.estimated_bytes) == (1, KIB, KIB)
        assert handlers.place.endswith(f"in {handler.__qualname__}")
        assert (handlers.views, handlers.bytes, handlers.estimated_bytes) == (3, 15 * KIB, 15 * KIB)
        assert (large.views, large.bytes) == (1, 17 * MIB)
        assert time.monotonic() - start >= mine.age >= handlers.age >= large.age >= 0
        del first
        held.pop()
        oversize.release()
        [left] = pool.holders()
        assert (left.views, left.bytes) == (2, 10 * KIB)

    where(use)
    assert pool.holders() == ()


def test_a_holder_is_listed_as_long_as_anything_made_from_its_view_lives(reusing):
    pool = reusing.BufferPool(sample_every=1)
    view = pool.acquire(100)
    part = view[10:20]
    view.release()
    [held] = pool.holders()
    assert held.views == 1
    part.release()
    assert pool.holders() == ()
    view = pool.acquire(100)  # the same block again
    assert pool.holders()[0].views == 1


def test_a_view_that_another_thread_drops_is_not_held_any_more(reusing):
    pool = reusing.BufferPool(sample_every=1)
    with loop_thread() as other:
        box = [other.call(pool.acquire, 100)]
        assert len(pool.holders()) == 1
        box[0].release()
        box.clear()
    assert pool.holders() == ()


def test_one_acquire_in_sample_every_is_recorded(reusing):
    pool = reusing.BufferPool(sample_every=64)

    def use():
        held = [pool.acquire(KIB) for _ in range(1024)]  # all of them created: one in four is recorded
        new = pool.holders()
        held.clear()
        held = [pool.acquire(KIB) for _ in range(1024)]  # all of them found idle
        return new, pool.holders(), held

    new, found, _ = on_a_loop(use)
    assert (new[0].views, new[0].estimated_bytes) == (256, MIB)
    assert (found[0].views, found[0].estimated_bytes) == (16, MIB)


def test_none_is_recorded_without_sampling(aiopool):
    pool = aiopool.BufferPool(sample_every=None)
    held = [pool.acquire(100) for _ in range(3000)]
    assert pool.holders() == ()
    del held


def test_by_default_the_place_that_makes_a_pool_grow_is_found(aiopool):
    pool = aiopool.BufferPool()
    leak = []

    def keeps():
        leak.append(pool.acquire(KIB))

    for _ in range(1000):
        keeps()
    [held] = pool.holders()
    assert held.place.endswith(f"in {keeps.__qualname__}")
    assert 0.8 * 1000 * KIB < held.estimated_bytes < 1.2 * 1000 * KIB


@pytest.mark.parametrize("sample_every", [1, 2, 3, 1000, 1 << 70])
def test_any_positive_sample_every_is_accepted(aiopool, sample_every):
    pool = aiopool.BufferPool(sample_every=sample_every)
    assert len(pool.acquire(10)) == 10


@pytest.mark.parametrize(
    ("sample_every", "error", "message"),
    [
        (0, ValueError, "sample_every must be at least 1, or None"),
        (-1, ValueError, "sample_every must not be negative, but is -1"),
        ("often", TypeError, "sample_every must be an integer, not 'often'"),
    ],
)
def test_an_error_names_an_invalid_sample_every(aiopool, sample_every, error, message):
    with pytest.raises(error, match=message):
        aiopool.BufferPool(sample_every=sample_every)


@WHERE
def test_in_debug_mode_each_acquire_is_recorded(aiopool, where):
    pool = aiopool.BufferPool(sample_every=None)

    def use():
        before = pool.acquire(100)
        aiopool._debug.turn_on()
        try:
            held = [pool.acquire(100) for _ in range(5)]
            assert pool.holders()[0].views == 5
            assert pool.holders()[0].estimated_bytes == pool.holders()[0].bytes == 5 * KIB
            held.clear()
            again = [pool.acquire(100) for _ in range(5)]  # found idle
            assert pool.holders()[0].views == 5
        finally:
            aiopool._debug.turn_off()
        again.clear()
        assert pool.holders() == ()
        held = [pool.acquire(100) for _ in range(5)]
        assert pool.holders() == ()
        del held, before

    where(use)


def test_a_record_that_raises_loses_no_block(aiopool, monkeypatch):
    """A signal handler, for example, may raise there."""
    pool = aiopool.BufferPool(sample_every=1)
    module = aiopool._core.holders

    class Interrupt(BaseException):
        pass

    def interrupt():
        raise Interrupt

    monkeypatch.setattr(module, "caller", interrupt)

    def use():
        for _ in range(3):
            with pytest.raises(Interrupt):
                pool.acquire(100)

    on_a_loop(use)
    assert (pool.stats().bytes_in_use, pool.holders()) == (0, ())


def test_a_record_is_skipped_if_there_is_no_memory(aiopool, monkeypatch):
    pool = aiopool.BufferPool(sample_every=1)

    def no_memory():
        raise MemoryError

    monkeypatch.setattr(aiopool._core.holders, "caller", no_memory)
    held = [on_a_loop(pool.acquire, 100), pool.acquire(100)]
    assert (pool.stats().bytes_in_use, pool.holders()) == (2 * KIB, ())
    del held


def test_holders_may_be_called_while_other_threads_acquire(aiopool):
    pool = aiopool.BufferPool(sample_every=1)
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            held = [pool.acquire(100) for _ in range(20)]
            held.clear()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(200):
            assert sum(each.views for each in pool.holders()) <= 20
    finally:
        stop.set()
        thread.join()
    assert pool.holders() == ()


def test_views_that_outlive_their_pool_are_forgotten(aiopool):
    pool = aiopool.BufferPool(sample_every=1)
    view = pool.acquire(100)
    view[:] = b"v" * 100
    del pool
    gc.collect()
    assert bytes(view) == b"v" * 100
