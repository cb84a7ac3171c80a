"""Size classes: which sizes there are, where their blocks come from, and how blocks are zeroed."""

import asyncio
import gc
import itertools
import sys
import threading
import tracemalloc

import pytest
from loops import PATIENCE, in_thread, in_threads, loop_thread
from shared import FREE_THREADED, KIB, MIB, class_of


def counts(pool, n):
    """The sources of blocks in the size class for `n` bytes: private, shared, stolen, victim, created."""
    blocks = class_of(pool, n).blocks
    return blocks.private, blocks.shared, blocks.stolen, blocks.victim, blocks.created


def taken(pool, n):
    """The source of the block of a new view of `n` bytes."""
    before = counts(pool, n)
    view = pool.acquire(n)
    after = counts(pool, n)
    (way,) = [
        name
        for name, old, new in zip(("private", "shared", "stolen", "victim", "created"), before, after, strict=True)
        if new == old + 1
    ]
    assert sum(after) == sum(before) + 1
    return way, view


# --- size classes ---


@pytest.mark.parametrize(
    ("smallest", "largest", "sizes"),
    [
        (1024, 1024, [1024]),
        (1, 8, [1, 2, 4, 8]),
        (1000, 5000, [1000, 2000, 4000, 5000]),
        (3, 4, [3, 4]),
        (1024, 10 * KIB, [KIB, 2 * KIB, 4 * KIB, 5 * KIB, 6 * KIB, 7 * KIB, 8 * KIB, 10 * KIB]),
        (4099, 10_000, [4099, 5123, 6148, 7173, 8198, 10_000]),
        (
            1024,
            16 * MIB,
            [KIB, 2 * KIB, *((4 + quarter) << shift for shift in range(10, 22) for quarter in range(4)), 16 * MIB],
        ),
    ],
)
def test_sizes_double_up_to_a_page_and_then_grow_by_quarters(aiopool, smallest, largest, sizes):
    pool = aiopool.BufferPool(min_size=smallest, max_size=largest)
    assert [each.size for each in pool.stats().classes] == sizes

    async def main():
        for index, size in enumerate(sizes):
            for n in (size, sizes[index - 1] + 1 if index else 0):
                for _ in range(2):  # created, and reused
                    view = pool.acquire(n)
                    assert pool.stats().bytes_in_use == pool.stats().classes[index].bytes_in_use == size
                    del view
        view = pool.acquire(largest + 1)
        assert pool.stats().oversize == aiopool.OversizeStats(1, largest + 1, largest + 1)
        del view
        assert pool.stats().oversize == aiopool.OversizeStats(1, largest + 1, 0)

    asyncio.run(main())


@pytest.mark.parametrize("smallest", [1, 3, 1000, 1024, 4095, 4097, 10_007])
def test_no_block_above_a_page_wastes_more_than_a_quarter(aiopool, smallest):
    sizes = [each.size for each in aiopool.BufferPool(min_size=smallest).stats().classes]
    for size, larger in itertools.pairwise(sizes):
        least = size + 1  # the smallest size that the larger class serves
        assert least <= 4096 or (larger - least) / larger <= 0.25, (size, larger)
    assert sizes[0] == smallest
    assert sizes[-1] == 16 * MIB


def test_a_max_size_beyond_all_memory_does_not_overflow(aiopool):
    pool = aiopool.BufferPool(min_size=1, max_size=1 << 80)
    assert pool.stats().classes[-1].size == sys.maxsize
    for n in (0, 1, 1025):
        assert len(pool.acquire(n)) == n
    for n in (sys.maxsize, sys.maxsize - 1, (1 << 62) + 1):
        with pytest.raises(MemoryError, match=str(n)):
            pool.acquire(n)


def test_buffers_above_max_size_are_counted_and_not_kept(aiopool):
    pool = aiopool.BufferPool(max_size=4096)
    for _ in range(3):
        view = pool.acquire(5000)
        assert (len(view), any(view)) == (5000, False)
        view[:] = b"x" * 5000
        assert pool.stats().bytes_in_use == 5000
        del view
    stats = pool.stats()
    assert stats.oversize == aiopool.OversizeStats(served=3, asked=15000, bytes_in_use=0)
    assert (stats.served, stats.created, stats.hit_rate, stats.bytes_idle) == (3, 3, 0.0, 0)


# --- where blocks come from ---


def test_own_private_then_own_shared(reusing):
    pool = reusing.BufferPool()

    async def main():
        way, one = taken(pool, 3000)
        assert way == "created"
        way, two = taken(pool, 3000)
        assert way == "created"
        one[:3], two[:3] = b"one", b"two"
        del one, two
        way, view = taken(pool, 2049)
        assert (way, bytes(view[:3])) == ("private", b"one")
        way, view2 = taken(pool, 4096)
        assert (way, bytes(view2[:3])) == ("shared", b"two")
        assert taken(pool, 2048)[0] == "created", "another size class"

    asyncio.run(main())


def test_stolen_from_another_loop_and_from_off_loop(reusing):
    pool = reusing.BufferPool()

    def leave(*marks):
        held = [pool.acquire(2000) for _ in marks]
        for index, mark in enumerate(marks):
            held[index][0] = mark
        # In this order; at the end of a function, the order is different from Python 3.14 on.
        while held:
            del held[0]

    with loop_thread() as other:

        async def main():
            other.call(leave, 1, 2)
            way, view = taken(pool, 2000)
            assert (way, view[0]) == ("stolen", 2)
            way, second = taken(pool, 2000)
            assert way == "created", "the other loop's private slot is its own"
            in_thread(leave, 3)
            way, third = taken(pool, 2000)
            assert (way, third[0]) == ("stolen", 3)
            del second

        asyncio.run(main())


def test_from_the_victim(reusing):
    pool = reusing.BufferPool()

    async def main():
        for _ in range(2):
            pool.acquire(2000)[0] = 7
            reusing.cleanup()
            way, view = taken(pool, 2000)
            assert (way, view[0]) == ("victim", 7)
            del view
            assert taken(pool, 2000)[0] == "private"

    asyncio.run(main())


def test_off_loop(reusing):
    pool = reusing.BufferPool()
    held = [pool.acquire(10) for _ in range(3)]
    held.clear()
    assert [taken(pool, 10)[0] for _ in range(3)] == ["shared"] * 3
    assert pool.stats().bytes_idle == 3 * KIB


def test_a_block_dropped_on_another_thread_is_idle_there(reusing):
    pool = reusing.BufferPool()
    with loop_thread() as other:

        async def main():
            views = [pool.acquire(10), pool.acquire(10)]
            # The last reference is dropped on the other loop.
            other.call(views.clear)
            return reusing.current_processor().id

        mine = asyncio.run(main())
        blocks = class_of(pool, 10).blocks
        theirs = other.call(reusing.current_processor).id
        if FREE_THREADED:  # there CPython leaves the view to the thread that created it
            assert {each.id: each.idle for each in blocks.processors} == {mine: 2}
        else:
            assert {each.id: each.idle for each in blocks.processors} == {mine: 0, theirs: 2}


def test_each_loop_reuses_its_own_blocks(reusing):
    pool = reusing.BufferPool()
    barrier = threading.Barrier(3)

    async def main(mark):
        for turn in range(50):
            with pool.acquire(1000) as view:
                if turn:
                    assert view[0] == mark
                view[0] = mark
            if turn == 0:
                barrier.wait(PATIENCE)  # each has blocks of its own before the others' could be stolen

    def run(mark):
        asyncio.run(main(mark))

    in_threads([lambda mark=mark: run(mark) for mark in (1, 2, 3)])
    assert class_of(pool, 1000).blocks.created == 3


# --- wiping ---


def test_without_wipe_a_view_may_have_old_bytes(reusing):
    pool = reusing.BufferPool()
    pool.acquire(5)[:] = b"hello"
    assert bytes(pool.acquire(5)) == b"hello"


def test_wipe_zeroes_before_it_is_used_again(aiopool):
    pool = aiopool.BufferPool(wipe=True)
    for n in (1000, 1, 1024):
        view = pool.acquire(n)
        assert not any(view)
        view[:] = b"x" * n
        part = view[n // 2 :]
        del view
        assert bytes(part) == b"x" * len(part), "wiped while a view exists"
        del part


def test_idle_blocks_are_already_wiped(reusing):
    pool = reusing.BufferPool(wipe=True)
    pool.acquire(100)[:6] = b"secret"
    assert not any(pool._size_classes[0].acquire(1024))


def test_wiping_needs_almost_no_memory(reusing):
    """A view may be dropped because there is no memory left. A block that cannot be zeroed is not reused."""
    pool = reusing.BufferPool(wipe=True)
    n = 4 * MIB + 5
    view = pool.acquire(n)
    view[:] = b"x" * n
    tracemalloc.start()
    del view
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MIB
    assert pool.acquire(n) == bytes(n)
    assert pool.stats().created == 1


def test_blocks_that_are_not_kept_are_wiped_too(reusing):
    pool = reusing.BufferPool(wipe=True, max_idle_bytes=0, max_size=2048)
    if reusing.implementation == "native":
        pytest.skip("the C extension frees the block")
    for n in (100, 5000):
        view = pool.acquire(n)
        content = next(each for each in gc.get_referents(*gc.get_referents(view.obj)) if isinstance(each, bytearray))
        view[:6] = b"secret"
        assert content.startswith(b"secret")
        del view
        assert not any(content)
