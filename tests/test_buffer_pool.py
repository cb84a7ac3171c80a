"""`BufferPool`: its views, errors, cleanup, and its end. Sizes and bounds are in tests/core."""

import asyncio
import copy
import gc
import pickle
import sys
import weakref

import pytest
from children import run_program
from loops import PATIENCE
from shared import KIB, MIB, collect_deferred

# --- the view ---


@pytest.mark.parametrize("n", [0, 1, 2, 1023, 1024, 1025, 4096, 65537, MIB, 16 * MIB, 16 * MIB + 1, 20 * MIB])
def test_a_view_has_exactly_the_requested_bytes(aiopool, n):
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


def test_any_integer_type_is_accepted(aiopool):
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


def test_a_view_with_exports_cannot_be_released(aiopool):
    """CPython raises a BufferError, and the block stays checked out."""
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
        # With more digits than Python converts. A peer may send such a length in hexadecimal.
        pytest.param(
            1 << 80_000,
            MemoryError,
            "acquire(a number of 80001 bits): cannot allocate a number of 80001 bits bytes",
            id="huge",
        ),
        pytest.param(-(1 << 80_000), ValueError, "n must not be negative, but is a number of 80001 bits", id="-huge"),
    ],
)
def test_an_error_names_the_invalid_size(aiopool, n, error, message):
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
def test_an_error_names_the_invalid_argument(aiopool, arguments, error, message):
    before = aiopool.pools()
    with pytest.raises(error, match=message):
        aiopool.BufferPool(**arguments)
    assert aiopool.pools() == before


@pytest.mark.parametrize("action", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_pool_is_not_copied(aiopool, action):
    with pytest.raises(TypeError, match=r"cannot copy or pickle <aiopool\.BufferPool 'mine'>"):
        action(aiopool.BufferPool(name="mine"))


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


def test_a_full_garbage_collection_starts_a_cycle(reusing):
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
        pool.acquire(100_000), lasting.acquire(100)  # a cycle over only one size class counts too
        await until(lambda: pool.stats().bytes_idle == 0)
        assert pool.stats().cycles >= 2
        assert (lasting.stats().cycles, lasting.stats().bytes_idle) == (0, KIB)

    asyncio.run(main())


def test_blocks_are_freed_in_slices(reusing):
    """The loop frees them between its other callbacks."""
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
    """They stay valid, and their blocks are freed with them; idle blocks are freed with the pool."""
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
def test_a_pool_in_a_reference_cycle_frees_its_idle_blocks(reusing, on_loop):
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
    assert budget.used == 0, "a block that came back is kept out of reach"


def test_a_subclass_that_holds_one_of_its_views_is_collected(aiopool):
    class Mine(aiopool.BufferPool):
        pass

    pool = Mine()
    pool.header = pool.acquire(100)
    pool.more = [pool.acquire(100)[:50], pool]
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None


# --- 3.11 without the C extension ---


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="from 3.12 on Python code can export buffers")
def test_on_311_without_the_c_extension_views_work_and_one_warning_is_emitted(child_env):
    assert run_program("buffers_on_311.py", {**child_env, "AIOPOOL_NO_EXTENSIONS": "1"}) == "ok\n"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="from 3.12 on Python code can export buffers")
def test_on_311_that_warning_as_an_error_reaches_no_connection(child_env):
    env = {**child_env, "AIOPOOL_NO_EXTENSIONS": "1"}
    assert run_program("buffers_on_311_raising.py", env, options=["-W", "error::RuntimeWarning"]) == "ok\n"
