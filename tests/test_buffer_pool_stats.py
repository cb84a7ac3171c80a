"""The statistics of a buffer pool: its bound and its peaks, and why blocks were not kept."""

import gc

import pytest
from loops import WHERE, on_a_loop
from shared import KIB, MIB, class_of


def test_stats(reusing):
    pool = reusing.BufferPool(min_size=1024, max_size=2048, name="frames")
    assert pool.stats() == reusing.BufferStats(
        "frames",
        tuple(
            reusing.SizeClassStats(size, 0, 0, 0, reusing.PoolStats("frames", (), cycles=0, dropped=0), displaced=0)
            for size in (1024, 2048)
        ),
        reusing.OversizeStats(0, 0, 0),
        cycles=0,
        max_idle_bytes=64 * MIB,
        peak_idle=0,
        peak_in_use=0,
    )
    assert (pool.stats().hit_rate, pool.stats().served, pool.stats().created) == (0.0, 0, 0)
    held = [pool.acquire(n) for n in (256, 1024, 1536, 4096)]
    stats = pool.stats()
    small, large = stats.classes
    assert (small.served, small.asked, small.bytes_in_use, small.waste) == (2, 1280, 2048, 0.375)
    assert (large.served, large.asked, large.bytes_in_use, large.waste) == (1, 1536, 2048, 0.25)
    assert (stats.bytes_in_use, stats.bytes_idle, stats.served, stats.created) == (8192, 0, 4, 4)
    held.clear()
    stats = pool.stats()
    assert [each.bytes_idle for each in stats.classes] == [2048, 2048]
    assert (stats.bytes_in_use, stats.bytes_idle, stats.hit_rate) == (0, 4096, 0.0)
    for _ in range(4):
        pool.acquire(1024)
    assert pool.stats().hit_rate == 0.5
    assert pool.stats().classes[0].blocks.hits == 4


def test_an_empty_view_is_counted_too(reusing):
    pool = reusing.BufferPool()
    view = pool.acquire(0)
    assert (pool.stats().bytes_in_use, class_of(pool, 0).waste) == (KIB, 1.0)
    del view
    assert pool.stats().bytes_idle == KIB


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
    """Blocks of two sizes that were checked out one after the other are then checked out at the same time."""
    pool = reusing.BufferPool()

    def use():
        for n in (4 * KIB, 8 * KIB):
            held = [pool.acquire(n) for _ in range(3)]
            held.clear()
        assert pool.stats().peak_in_use == 24 * KIB
        held = [pool.acquire(n) for n in (4 * KIB, 8 * KIB) for _ in range(3)]
        assert pool.stats().peak_in_use == 36 * KIB
        assert len(held) == 6

    on_a_loop(use)
    assert pool.stats().created == 6


@WHERE
def test_stats_say_why_blocks_were_not_kept(reusing, where):
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


def test_stats_count_retired_blocks(reusing):
    pool = reusing.BufferPool()

    def use():
        held = [pool.acquire(KIB) for _ in range(5)]
        held.clear()

    on_a_loop(use)
    reusing.cleanup()
    reusing.cleanup()
    assert (pool.stats().retired, pool.stats().displaced, pool.stats().over_budget) == (5, 0, 0)


def test_as_dict_has_all_figures(aiopool):
    plain = aiopool.BufferPool().stats().as_dict()
    names = {"max_idle_bytes", "peak_idle", "peak_in_use", "over_budget", "displaced", "retired"}
    assert names <= set(plain)
    assert {"over_budget", "displaced", "retired"} <= set(plain["classes"][0])


def test_no_text_shows_the_contents_of_a_buffer(aiopool):
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
