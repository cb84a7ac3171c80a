"""The bound on idle bytes, over all size classes and all threads."""

import asyncio
import sys

import pytest
from loops import in_thread, in_threads, loop_thread
from shared import KIB, class_of


def test_blocks_beyond_max_idle_bytes_are_freed(reusing):
    pool = reusing.BufferPool(max_idle_bytes=10 * KIB)

    async def main():
        held = [pool.acquire(KIB) for _ in range(8)] + [pool.acquire(4 * KIB) for _ in range(2)]
        assert (pool.stats().bytes_in_use, pool.stats().bytes_idle) == (16 * KIB, 0)
        held.reverse()
        while held:
            held.pop()
            assert pool.stats().bytes_idle <= 10 * KIB
        # 8 small blocks; then two of them are freed for a large one. The other large block was not used later than that
        # one, nor later than the small blocks that came back at the same time.
        assert (pool.stats().bytes_in_use, pool.stats().bytes_idle) == (0, 10 * KIB)
        assert [each.bytes_idle for each in pool.stats().classes[:3]] == [6 * KIB, 0, 4 * KIB]
        assert (pool.stats().displaced, pool.stats().over_budget) == (2, 1)

    asyncio.run(main())


def test_max_idle_bytes_counts_over_all_loops(reusing):
    pool = reusing.BufferPool(max_idle_bytes=3 * KIB)

    def use():
        held = [pool.acquire(1) for _ in range(2)]
        held.clear()
        return pool.stats().bytes_idle

    with loop_thread() as one, loop_thread() as two:
        assert [one.call(use), two.call(use), in_thread(use)] == [2 * KIB, 3 * KIB, 3 * KIB]
        idle = {each.id: each.idle for each in class_of(pool, 1).blocks.processors}
        assert sum(idle.values()) == 3


def test_nothing_is_kept_if_max_idle_bytes_is_0(aiopool):
    pool = aiopool.BufferPool(max_idle_bytes=0)
    for _ in range(3):
        pool.acquire(100)
    assert (pool.stats().bytes_idle, pool.stats().hit_rate, pool.stats().created) == (0, 0.0, 3)


def test_max_idle_bytes_may_exceed_all_memory(reusing):
    pool = reusing.BufferPool(max_idle_bytes=1 << 80)
    pool.acquire(100)
    assert pool.stats().bytes_idle == KIB


def test_the_bound_holds_when_threads_race(reusing):
    limit = 7 * KIB
    pool = reusing.BufferPool(max_idle_bytes=limit)

    def churn():
        for turn in range(400):
            held = [pool.acquire(1 + index * 700) for index in range(1 + turn % 5)]
            held.clear()

    async def churn_on_a_loop():
        churn()

    in_threads([churn, churn, lambda: asyncio.run(churn_on_a_loop()), lambda: asyncio.run(churn_on_a_loop())])
    stats = pool.stats()
    assert stats.bytes_in_use == 0
    assert stats.bytes_idle == sum(each.bytes_idle for each in stats.classes)
    assert stats.over_budget + stats.displaced > 0, "the bound was never met"
    if reusing._core.idle_budget.EXACT:
        # Not a sum over the size classes taken meanwhile: a block may go while another, that is counted later, comes.
        assert stats.bytes_idle <= stats.peak_idle <= limit
    else:
        reusing.cleanup()
        assert pool._budget.used == pool.stats().bytes_idle


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python code cannot export buffers before 3.12")
def test_the_next_cycle_corrects_a_wrong_budget(reference, monkeypatch):
    """In pure Python it becomes wrong if threads count at once without a GIL, or if there is no memory to count."""
    monkeypatch.setattr(reference._core.idle_budget, "EXACT", False)
    pool = reference.BufferPool(max_idle_bytes=10 * KIB)
    pool._budget.used = 10 * KIB
    pool.acquire(100)
    assert class_of(pool, 100).bytes_idle == 0, "the budget seems to be full"
    reference.cleanup()
    held = [pool.acquire(100) for _ in range(2)]
    held.clear()
    assert pool.stats().bytes_idle == class_of(pool, 100).bytes_idle == 2 * KIB
    pool._budget.used = 0
    reference.cleanup()
    assert pool._budget.used == 2 * KIB
    reference.cleanup()
    assert pool.stats().bytes_idle == 0


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_budget_that_could_not_be_counted_is_known_to_be_wrong(reference, error):
    """If there is no memory for the sum, the block is gone anyway; what a signal handler raises reaches the caller."""

    class Raises(int):
        def __sub__(self, other):
            raise error

    budget = reference._core.idle_budget.IdleBudget(KIB, ())
    budget.used = Raises(KIB)
    if error is MemoryError:
        budget.give_back(1)
    else:
        with pytest.raises(error):
            budget.give_back(1)
    assert not budget.exact
    budget.recount(0)
    assert budget.exact == reference._core.idle_budget.EXACT
