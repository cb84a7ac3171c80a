"""What an operator asks of a buffer pool: its bound and peaks, why blocks were not kept, and who holds the bytes."""

import asyncio
import gc
import sys
import threading
import time

import pytest
from loops import loop_thread

KIB = 1024
MIB = 1024 * KIB

pytestmark = pytest.mark.filterwarnings("ignore:Buffers are not reused on Python 3.11:RuntimeWarning")


def on_loop(function, *args):
    async def main():
        return function(*args)

    return asyncio.run(main())


def off_loop(function, *args):
    return function(*args)


WHERE = pytest.mark.parametrize("where", [on_loop, off_loop], ids=["on a loop", "off-loop"])


# --- stats ---


@WHERE
def test_the_bound_and_the_peaks(reusing, where):
    pool = reusing.BufferPool(max_idle_bytes=10 * KIB)

    def use():
        held = [pool.acquire(KIB) for _ in range(5)]
        held.append(pool.acquire(17 * MIB))
        assert pool.stats().peak_in_use == 17 * MIB + 5 * KIB
        held.clear()
        held += [pool.acquire(KIB) for _ in range(3)]
        assert pool.stats().bytes_in_use == 3 * KIB

    where(use)
    stats = pool.stats()
    assert (stats.max_idle_bytes, stats.peak_in_use, stats.peak_idle) == (10 * KIB, 17 * MIB + 5 * KIB, 5 * KIB)
    pool.clear()
    assert (pool.stats().bytes_idle, pool.stats().peak_idle) == (0, 5 * KIB)


def test_a_peak_that_is_reached_without_creating_a_block(reusing):
    """Blocks of two sizes that were in use one after the other come to be in use together."""
    pool = reusing.BufferPool()

    def use():
        for n in (4 * KIB, 8 * KIB):
            held = [pool.acquire(n) for _ in range(3)]
            held.clear()
        assert pool.stats().peak_in_use == 24 * KIB
        held = [pool.acquire(n) for n in (4 * KIB, 8 * KIB) for _ in range(3)]
        assert pool.stats().peak_in_use == 36 * KIB
        assert len(held) == 6

    on_loop(use)
    assert pool.stats().created == 6


@WHERE
def test_why_blocks_were_not_kept(reusing, where):
    pool = reusing.BufferPool(max_idle_bytes=4 * KIB, max_size=8 * KIB)

    def use():
        held = [pool.acquire(KIB) for _ in range(7)]
        held.clear()  # 4 are kept
        pool.acquire(2 * KIB)  # displaces 2
        pool.acquire(5 * KIB)  # larger than the whole budget
        pool.acquire(9 * KIB)  # oversize
        assert pool.clear() == 3

    where(use)
    stats = pool.stats()
    assert (stats.over_budget, stats.displaced, stats.oversize.served, stats.retired) == (4, 2, 1, 3)
    assert [(each.size, each.over_budget, each.displaced, each.retired) for each in stats.classes[:4]] == [
        (KIB, 3, 2, 2),
        (2 * KIB, 0, 0, 1),
        (4 * KIB, 0, 0, 0),
        (5 * KIB, 1, 0, 0),
    ]


def test_what_cycles_retire_is_told(reusing):
    pool = reusing.BufferPool()

    def use():
        held = [pool.acquire(KIB) for _ in range(5)]
        held.clear()

    on_loop(use)
    reusing.cleanup()
    reusing.cleanup()
    assert (pool.stats().retired, pool.stats().displaced, pool.stats().over_budget) == (5, 0, 0)


def test_all_of_it_is_in_as_dict(aiopool):
    plain = aiopool.BufferPool().stats().as_dict()
    names = {"max_idle_bytes", "peak_idle", "peak_in_use", "over_budget", "displaced", "retired"}
    assert names <= set(plain)
    assert {"over_budget", "displaced", "retired"} <= set(plain["classes"][0])


def test_nothing_shows_what_is_in_a_buffer(aiopool):
    pool = aiopool.BufferPool(sample_every=1)
    view = pool.acquire(100)
    view[:6] = b"secret"
    behind = gc.get_referents(view.obj)
    for each in [view, view.obj, pool, pool.stats(), pool.holders(), *behind, *gc.get_referents(*behind)]:
        assert "secret" not in repr(each)
        assert "secret" not in str(each)
    with pytest.raises(TypeError) as info:
        pool.acquire(view)
    assert "secret" not in str(info.value)


# --- holders ---


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


def test_a_view_is_held_as_long_as_anything_made_of_it(reusing):
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


def test_one_acquire_in_so_many_is_recorded(reusing):
    pool = reusing.BufferPool(sample_every=64)

    def use():
        held = [pool.acquire(KIB) for _ in range(1024)]  # all of them created: one in four is recorded
        new = pool.holders()
        held.clear()
        held = [pool.acquire(KIB) for _ in range(1024)]  # all of them found idle
        return new, pool.holders(), held

    new, found, _ = on_loop(use)
    assert (new[0].views, new[0].estimated_bytes) == (256, MIB)
    assert (found[0].views, found[0].estimated_bytes) == (16, MIB)


def test_none_is_recorded_without_sampling(aiopool):
    pool = aiopool.BufferPool(sample_every=None)
    held = [pool.acquire(100) for _ in range(3000)]
    assert pool.holders() == ()
    del held


def test_by_default_what_makes_a_pool_grow_is_found(aiopool):
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
def test_any_positive_rate_will_do(aiopool, sample_every):
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
def test_a_bad_rate_is_named(aiopool, sample_every, error, message):
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
    """As a signal handler does."""
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

    on_loop(use)
    assert (pool.stats().bytes_in_use, pool.holders()) == (0, ())


def test_a_record_for_which_there_is_no_memory_is_left_out(aiopool, monkeypatch):
    pool = aiopool.BufferPool(sample_every=1)

    def no_memory():
        raise MemoryError

    monkeypatch.setattr(aiopool._core.holders, "caller", no_memory)
    held = [on_loop(pool.acquire, 100), pool.acquire(100)]
    assert (pool.stats().bytes_in_use, pool.holders()) == (2 * KIB, ())
    del held


def test_holders_may_be_asked_for_while_others_acquire(aiopool):
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
