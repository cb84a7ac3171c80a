"""What `BufferPool` promises: sizes, where blocks come from, bounds, wiping, cleanup, errors, stats."""

import asyncio
import copy
import gc
import itertools
import os
import pickle
import sys
import threading
import tracemalloc
import weakref

import pytest
from children import run_child, run_program
from loops import PATIENCE, in_thread, in_threads, loop_thread

FREE_THREADED = hasattr(sys, "_is_gil_enabled") and not sys._is_gil_enabled()
KIB = 1024
MIB = 1024 * KIB

pytestmark = pytest.mark.filterwarnings("ignore:Buffers are not reused on Python 3.11:RuntimeWarning")


def collect_deferred():
    """From free-threaded 3.14 on, a pool that is no longer referenced goes at the next garbage collection."""
    if FREE_THREADED and sys.version_info >= (3, 14):
        gc.collect()


def class_of(pool, n):
    """The stats of the size class that serves `n` bytes."""
    return next(each for each in pool.stats().classes if each.size >= n)


def counts(pool, n):
    """How the blocks of the size class that serves `n` bytes came: private, shared, stolen, victim, created."""
    blocks = class_of(pool, n).blocks
    return blocks.private, blocks.shared, blocks.stolen, blocks.victim, blocks.created


def taken(pool, n):
    """Which way the block of a fresh view of `n` bytes came."""
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


# --- the view ---


@pytest.mark.parametrize("n", [0, 1, 2, 1023, 1024, 1025, 4096, 65537, MIB, 16 * MIB, 16 * MIB + 1, 20 * MIB])
def test_a_view_has_exactly_the_bytes_asked_for(aiopool, n):
    pool = aiopool.BufferPool()
    for _ in range(2):
        view = pool.acquire(n)
        assert type(view) is memoryview
        assert (view.nbytes, len(view), view.format, view.itemsize, view.ndim) == (n, n, "B", 1, 1)
        assert (view.shape, view.strides, view.contiguous, view.readonly) == ((n,), (1,), True, False)
        if n:
            view[0] = view[-1] = 255
            assert (view[0], view[n - 1]) == (255, 255)
        with pytest.raises(IndexError):
            view[n]
        view.release()


def test_fresh_blocks_are_zero(aiopool):
    pool = aiopool.BufferPool()
    held = [pool.acquire(n) for n in (1, 100, 1024, 5000, MIB, 17 * MIB)]
    assert not any(map(any, (view.tobytes().strip(b"\0") for view in held)))


def test_an_integer_may_be_anything_that_is_one(aiopool):
    class Index:
        def __index__(self):
            return 7

    pool = aiopool.BufferPool()
    assert len(pool.acquire(Index())) == 7
    assert len(pool.acquire(True)) == 1


def test_a_released_view_raises_value_error(aiopool):
    pool = aiopool.BufferPool()
    with pool.acquire(10) as view:
        view[:] = b"0123456789"
    for look in (lambda: view[0], lambda: bytes(view), lambda: view[:1]):
        with pytest.raises(ValueError, match="released"):
            look()


def test_a_view_that_something_looks_at_is_not_released(aiopool):
    """CPython's answer to that is a BufferError; the bytes stay, and so does their block."""
    pool = aiopool.BufferPool()
    view = pool.acquire(10)
    view[:] = b"0123456789"
    looking = pickle.PickleBuffer(view)
    with pytest.raises(BufferError):
        view.release()
    assert bytes(view) == bytes(looking) == b"0123456789"
    assert pool.stats().bytes_in_use == KIB
    looking.release()
    view.release()
    assert pool.stats().bytes_in_use == 0


# --- errors ---


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (-1, ValueError, "n must not be negative, but is -1"),
        (-(1 << 70), ValueError, f"n must not be negative, but is {-(1 << 70)}"),
        ("x", TypeError, "n must be an integer, not 'x'"),
        (1.5, TypeError, "n must be an integer, not 1.5"),
        (None, TypeError, "n must be an integer, not None"),
        (1 << 62, MemoryError, f"acquire({1 << 62}): cannot allocate {1 << 62} bytes"),
        (1 << 70, MemoryError, f"acquire({1 << 70}): cannot allocate {1 << 70} bytes"),
        # Of more digits than Python writes; a length in hexadecimal may have as many as a peer likes.
        pytest.param(
            1 << 80_000,
            MemoryError,
            "acquire(a number of 80001 bits): cannot allocate a number of 80001 bits bytes",
            id="huge",
        ),
        pytest.param(-(1 << 80_000), ValueError, "n must not be negative, but is a number of 80001 bits", id="-huge"),
    ],
)
def test_a_bad_size_is_named(aiopool, n, error, message):
    pool = aiopool.BufferPool()
    before = pool.stats()
    with pytest.raises(error) as info:
        pool.acquire(n)
    assert type(info.value) is error
    assert str(info.value) == message
    assert pool.stats() == before
    assert len(pool.acquire(5)) == 5


def test_no_memory_within_a_size_class(aiopool):
    pool = aiopool.BufferPool(max_size=1 << 62)
    with pytest.raises(MemoryError, match=str(1 << 61)):
        pool.acquire(1 << 61)
    assert pool.stats().bytes_in_use == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"min_size": 0}, ValueError, "min_size must be from 1 to max_size .16777216., but is 0"),
        ({"min_size": -1}, ValueError, "min_size must not be negative, but is -1"),
        ({"min_size": 2048, "max_size": 1024}, ValueError, "from 1 to max_size .1024., but is 2048"),
        ({"min_size": 1 << 80_000}, ValueError, "from 1 to max_size .16777216., but is a number of 80001 bits"),
        ({"max_size": 0}, ValueError, "max_size .0., but is 1024"),
        ({"max_size": "big"}, TypeError, "max_size must be an integer, not 'big'"),
        ({"max_idle_bytes": -5}, ValueError, "max_idle_bytes must not be negative, but is -5"),
        ({"max_idle_bytes": 1.5}, TypeError, "max_idle_bytes must be an integer, not 1.5"),
        ({"idle_timeout": 0}, ValueError, "idle_timeout must be more than 0 seconds"),
        ({"idle_timeout": "soon"}, TypeError, "idle_timeout must be a number of seconds or None, not 'soon'"),
    ],
)
def test_a_bad_argument_is_named(aiopool, arguments, error, message):
    before = aiopool.pools()
    with pytest.raises(error, match=message):
        aiopool.BufferPool(**arguments)
    assert aiopool.pools() == before


@pytest.mark.parametrize("action", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_pool_is_not_copied(aiopool, action):
    with pytest.raises(TypeError, match=r"cannot copy or pickle <aiopool\.BufferPool 'mine'>"):
        action(aiopool.BufferPool(name="mine"))


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
                for _ in range(2):  # made, and reused
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
        least = size + 1  # of what the larger one serves
        assert least <= 4096 or (larger - least) / larger <= 0.25, (size, larger)
    assert sizes[0] == smallest
    assert sizes[-1] == 16 * MIB


def test_a_largest_size_beyond_all_memory_is_no_overflow(aiopool):
    pool = aiopool.BufferPool(min_size=1, max_size=1 << 80)
    assert pool.stats().classes[-1].size == sys.maxsize
    for n in (0, 1, 1025):
        assert len(pool.acquire(n)) == n
    for n in (sys.maxsize, sys.maxsize - 1, (1 << 62) + 1):
        with pytest.raises(MemoryError, match=str(n)):
            pool.acquire(n)


def test_above_max_size_is_served_counted_and_not_kept(aiopool):
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
        # One after another, in this order: at a function's end, the order is another one from Python 3.14 on.
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


def test_what_is_dropped_elsewhere_lies_idle_there(reusing):
    pool = reusing.BufferPool()
    with loop_thread() as other:

        async def main():
            views = [pool.acquire(10), pool.acquire(10)]
            # The last reference goes on the other loop.
            other.call(views.clear)
            return reusing.current_processor().id

        mine = asyncio.run(main())
        blocks = class_of(pool, 10).blocks
        theirs = other.call(reusing.current_processor).id
        if FREE_THREADED:  # there CPython leaves the view to the thread that made it
            assert {each.id: each.idle for each in blocks.processors} == {mine: 2}
        else:
            assert {each.id: each.idle for each in blocks.processors} == {mine: 0, theirs: 2}


def test_each_loop_finds_its_own_again(reusing):
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


# --- the bound ---


def test_what_comes_back_beyond_max_idle_bytes_is_freed(reusing):
    pool = reusing.BufferPool(max_idle_bytes=10 * KIB)

    async def main():
        held = [pool.acquire(KIB) for _ in range(8)] + [pool.acquire(4 * KIB) for _ in range(2)]
        assert (pool.stats().bytes_in_use, pool.stats().bytes_idle) == (16 * KIB, 0)
        held.reverse()
        while held:
            held.pop()
            assert pool.stats().bytes_idle <= 10 * KIB
        # 8 small ones; then two of them make room for a big one. The other big one is not worth more than that one, nor
        # than the small ones that came back as late.
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


def test_nothing_is_kept_with_no_idle_bytes(aiopool):
    pool = aiopool.BufferPool(max_idle_bytes=0)
    for _ in range(3):
        pool.acquire(100)
    assert (pool.stats().bytes_idle, pool.stats().hit_rate, pool.stats().created) == (0, 0.0, 3)


def test_a_bound_beyond_all_memory(reusing):
    pool = reusing.BufferPool(max_idle_bytes=1 << 80)
    pool.acquire(100)
    assert pool.stats().bytes_idle == KIB


def test_the_bound_holds_when_threads_race(reusing):
    limit = 7 * KIB
    pool = reusing.BufferPool(max_idle_bytes=limit)
    seen, stop = [], threading.Event()

    def churn():
        for turn in range(400):
            held = [pool.acquire(1 + index * 700) for index in range(1 + turn % 5)]
            held.clear()

    async def churn_on_a_loop():
        churn()

    def watch():
        # Not without a pause: who waits for a dict's lock in free-threaded CPython gives way to all that is ready to
        # run. With a thread at that dict all the time, on a busy machine, this took half a minute.
        while not stop.wait(0.001):
            seen.append(sum(each.bytes_idle for each in pool.stats().classes))

    def churn_and_stop():
        try:
            in_threads([churn, churn, lambda: asyncio.run(churn_on_a_loop()), lambda: asyncio.run(churn_on_a_loop())])
        finally:
            stop.set()

    in_threads([watch, churn_and_stop])
    stats = pool.stats()
    assert stats.bytes_in_use == 0
    assert stats.bytes_idle == sum(each.bytes_idle for each in stats.classes)
    if reusing._core.idle_budget.EXACT:
        assert max([*seen, stats.bytes_idle]) <= limit
    else:
        reusing.cleanup()
        assert pool._budget.used == pool.stats().bytes_idle


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python code cannot export buffers before 3.12")
def test_a_budget_that_missed_some_is_right_after_the_next_cycle(reference, monkeypatch):
    """Without a GIL, in Python: threads that count at once. Or where there is no memory to count with."""
    monkeypatch.setattr(reference._core.idle_budget, "EXACT", False)
    pool = reference.BufferPool(max_idle_bytes=10 * KIB)
    pool._budget.used = 10 * KIB
    pool.acquire(100)
    assert class_of(pool, 100).bytes_idle == 0, "it takes itself for full"
    reference.cleanup()
    pool.acquire(100)
    assert pool.stats().bytes_idle == class_of(pool, 100).bytes_idle == KIB
    reference.cleanup()
    reference.cleanup()
    assert pool.stats().bytes_idle == 0


# --- wiping ---


def test_without_wipe_a_view_may_hold_what_was_there(reusing):
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
        assert bytes(part) == b"x" * len(part), "wiped while somebody sees it"
        del part


def test_what_is_idle_is_wiped_already(reusing):
    pool = reusing.BufferPool(wipe=True)
    pool.acquire(100)[:6] = b"secret"
    assert not any(pool._size_classes[0].acquire(1024))


def test_wiping_takes_no_memory_to_speak_of(reusing):
    """It may be for want of memory that a view is dropped. What can't be wiped is not reused."""
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


def test_what_is_not_kept_is_wiped_too(reusing):
    pool = reusing.BufferPool(wipe=True, max_idle_bytes=0, max_size=2048)
    if reusing.implementation == "native":
        pytest.skip("there is nothing left to look at")
    for n in (100, 5000):
        view = pool.acquire(n)
        content = next(each for each in gc.get_referents(*gc.get_referents(view.obj)) if isinstance(each, bytearray))
        view[:6] = b"secret"
        assert content.startswith(b"secret")
        del view
        assert not any(content)


# --- cleanup ---


def test_two_cycles_drop_unused_blocks(reusing):
    pool = reusing.BufferPool()
    pool.acquire(100), pool.acquire(8000)
    held = pool.acquire(3000)
    held[:4] = b"kept"
    assert pool.stats().bytes_idle == 9 * KIB
    reusing.cleanup()
    assert (pool.stats().bytes_idle, pool.stats().cycles) == (9 * KIB, 1)
    reusing.cleanup()
    assert (pool.stats().bytes_idle, pool.stats().bytes_in_use, pool.stats().cycles) == (0, 4 * KIB, 2)
    assert bytes(held[:4]) == b"kept"
    del held
    assert pool.stats().bytes_idle == 4 * KIB


def test_a_collection_is_a_cycle(reusing):
    pool = reusing.BufferPool()
    pool.acquire(100)
    gc.collect()
    gc.collect()
    assert pool.stats().bytes_idle == 0


async def until(done):
    async with asyncio.timeout(PATIENCE):
        while not done():
            await asyncio.sleep(0.005)


def test_idle_timeout(reusing):
    pool = reusing.BufferPool(idle_timeout=0.01)
    lasting = reusing.BufferPool(idle_timeout=None)

    async def main():
        pool.acquire(100_000), lasting.acquire(100)  # a cycle over one size class alone counts too
        await until(lambda: pool.stats().bytes_idle == 0)
        assert pool.stats().cycles >= 2
        assert (lasting.stats().cycles, lasting.stats().bytes_idle) == (0, KIB)

    asyncio.run(main())


def test_cleanup_drops_in_slices(reusing):
    """Freed by the loop, between its other callbacks, and counted as idle until it is."""
    pool = reusing.BufferPool(max_idle_bytes=1 << 30)

    async def main():
        held = [pool.acquire(100) for _ in range(5000)]
        held.clear()
        idle = pool.stats().bytes_idle
        assert idle == 5000 * KIB
        reusing.cleanup()
        reusing.cleanup()
        assert pool._budget.used > idle // 2, "freed by the call itself"
        await until(lambda: pool._budget.used == 0)

    asyncio.run(main())


def test_clear(reusing):
    pool = reusing.BufferPool()
    held = pool.acquire(1)
    pool.acquire(1), pool.acquire(5000)
    reusing.cleanup()
    other = pool.acquire(1)
    keep = [pool.acquire(1)]
    del other, keep
    assert pool.clear() == 3
    assert (pool.clear(), pool.stats().bytes_idle, pool.stats().bytes_in_use) == (0, 0, KIB)
    del held
    assert pool.stats().bytes_idle == KIB


# --- the pool itself ---


def test_pools_lists_it(aiopool):
    pool = aiopool.BufferPool(name="bodies")
    assert aiopool.pools()[-1] is pool
    assert repr(pool) == "<aiopool.BufferPool 'bodies'>"
    assert repr(aiopool.BufferPool()).startswith("<aiopool.BufferPool 0x")
    gone = weakref.ref(pool)
    del pool
    collect_deferred()
    assert gone() is None


def test_views_do_not_keep_their_pool(reusing):
    """Nor what lies idle in it. They go on as before, and are freed in the end."""
    pool = reusing.BufferPool()
    view = pool.acquire(100)
    big = reusing.BufferPool(max_size=1024).acquire(5000)
    view[:], big[:] = b"v" * 100, b"b" * 5000
    for _ in range(5):
        held = [pool.acquire(100) for _ in range(5)]
        del held
    budget, gone = pool._budget, weakref.ref(pool)
    stores = [weakref.ref(store) for store in pool._stores]
    assert budget.used == 5 * KIB
    del pool
    collect_deferred()
    assert gone() is None
    assert budget.used == 0, "idle blocks outlive their pool"
    assert (bytes(view), bytes(big)) == (b"v" * 100, b"b" * 5000)
    del view, big
    assert budget.used == 0
    del budget
    assert [store() for store in stores] == [None] * len(stores), "a block that came back is kept"


@pytest.mark.parametrize("on_loop", [True, False], ids=["loop", "off-loop"])
def test_a_pool_that_goes_in_a_garbage_cycle_frees_what_is_idle(reusing, on_loop):
    class App:
        pass

    async def use():
        work()

    def work():
        for _ in range(2):
            held = [gone().acquire(100) for _ in range(5)]
            held.clear()
            reusing.cleanup()  # so that some lie in the victim
        views.append(gone().acquire(100))
        views.append(gone().acquire(100)[50:])

    app = App()
    app.itself, app.pool = app, reusing.BufferPool()
    views, budget, gone = [], app.pool._budget, weakref.ref(app.pool)
    asyncio.run(use()) if on_loop else work()
    assert budget.used == 3 * KIB
    del app
    gc.collect()
    assert gone() is None
    assert budget.used == 0, "idle blocks outlive their pool"
    views[0][:] = b"v" * 100
    assert bytes(views[0]) == b"v" * 100
    views.clear()
    assert budget.used == 0, "what came back is kept, where nothing can get it"


def test_a_subclass_that_keeps_a_view_of_its_own_is_collected(aiopool):
    class Mine(aiopool.BufferPool):
        pass

    pool = Mine()
    pool.header = pool.acquire(100)
    pool.more = [pool.acquire(100)[:50], pool]
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None


# --- stats ---


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


# --- fork ---


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif(
    FREE_THREADED,
    reason="free-threaded CPython 3.13 itself leaves locks of its objects held in the child, about once in 200 forks",
)
def test_after_a_fork_amid_other_threads_the_child_works_at_once(reusing, child_env):
    assert run_program("buffer_fork.py", child_env, options=["-W", "ignore::DeprecationWarning"]) == "ok\n"


# --- 3.11 without the C extension ---


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="from 3.12 on Python code can export buffers")
def test_on_311_without_the_c_extension_views_are_right_and_one_warning_says_so(child_env):
    assert run_program("buffers_on_311.py", {**child_env, "AIOPOOL_NO_EXTENSIONS": "1"}) == "ok\n"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="from 3.12 on Python code can export buffers")
def test_on_311_that_warning_as_an_error_reaches_no_connection(child_env):
    """It goes to sys.unraisablehook, as errors of finalizers do."""
    program = """
import sys, aiopool
told = []
sys.unraisablehook = lambda args: told.append(args.exc_value)
pool = aiopool.BufferPool()
assert len(pool.acquire(10)) == len(pool.acquire(10)) == 10
[error] = told
assert type(error) is RuntimeWarning, error
print("ok")
"""
    env = {**child_env, "AIOPOOL_NO_EXTENSIONS": "1"}
    assert run_child(program, env, options=["-W", "error::RuntimeWarning"]) == "ok\n"
