"""Mistakes that C code can make: with references, with memory, and cycles that no collection finds.

All tests run over both implementations. Pure Python cannot make most of these mistakes, so it shows that the tests are
right.
"""

import asyncio
import contextlib
import gc
import sys
import weakref

import pytest
from children import run_program
from loops import in_threads
from shared import FREE_THREADED, Thing

WITHOUT_MEMORY = pytest.mark.skipif(
    FREE_THREADED and sys.version_info < (3, 14),
    reason="free-threaded CPython 3.13 itself crashes in it, in pure Python too",
)

# --- references and memory ---


def test_no_operation_leaks_a_reference_or_a_block(child_env):
    assert run_program("pool_leaks.py", child_env) == "ok\n"


@WITHOUT_MEMORY
def test_every_allocation_may_fail(child_env):
    pytest.importorskip("_testcapi")
    assert run_program("pool_no_memory.py", child_env) == "ok\n"


@WITHOUT_MEMORY
@pytest.mark.parametrize("operation", ["clear", "cleanup"])
def test_every_allocation_of_the_collector_may_fail(child_env, operation):
    pytest.importorskip("_testcapi")
    assert run_program("pool_no_memory.py", child_env, arguments=[operation]) == "ok\n"


def test_long_chains_do_not_overflow_the_stack(child_env):
    assert run_program("long_chains.py", child_env) == "ok\n"


def test_a_borrow_entered_by_its_own_new_forgets_the_first_object(aiopool):
    made = []

    def new():
        made.append(weakref.ref(thing := Thing()))
        if len(made) == 1:
            block.__enter__()
        return thing

    block = aiopool.Pool(new).borrow()
    obj = block.__enter__()
    assert [ref() is obj for ref in made] == [True, False]
    assert made[1]() is None, "nothing refers to it, but it is alive"


def test_a_borrow_whose_object_has_no_repr_still_reports_the_error(aiopool):
    class Broken:
        def __repr__(self):
            raise ZeroDivisionError

    block = aiopool.Pool(Broken).borrow()
    block.__enter__()
    with pytest.raises(RuntimeError, match=r"holds <.*Broken object at 0x[0-9a-f]+> already"):
        block.__enter__()


def test_a_borrow_can_be_entered_by_an_exit_stack(aiopool):
    pool = aiopool.Pool(Thing)

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            one = stack.enter_context(pool.borrow())
            two = await stack.enter_async_context(pool.borrow())
            assert one is not two
        assert pool.stats().idle == 2

    asyncio.run(main())
    block = pool.borrow()
    kind = type(block)
    obj = kind.__enter__(block)
    kind.__exit__(block, None, None, None)
    assert pool.get() is obj
    for call in (kind.__enter__, lambda: kind.__enter__(pool)):
        with pytest.raises((TypeError, AttributeError)):
            call()


def test_one_borrow_in_many_threads_gives_each_object_back_once(aiopool):
    """Code should not share a borrow, but that must not corrupt memory."""
    pool = aiopool.Pool(Thing)
    block = pool.borrow()

    def misuse():
        for _ in range(1500):
            with contextlib.suppress(RuntimeError, ValueError):
                block.__enter__()
            with contextlib.suppress(RuntimeError, ValueError):
                block.__exit__(None, None, None)

    in_threads([misuse] * 4)
    found = []
    while pool.stats().idle:
        found.append(pool.get())
    assert len(set(map(id, found))) == len(found)


def test_off_loop_counts_never_stop_a_put(aiopool):
    """Without a GIL the off-loop counts may be wrong, but that must not raise."""
    pool = aiopool.Pool()

    def churn():
        for _ in range(3000):
            pool.put(Thing())
            pool.get()

    in_threads([churn] * 4)
    counters = aiopool._core.shard.Counters()
    counters.rejected -= 1
    assert counters.rejected == -1


# --- cycles ---


def through_an_object(pool):
    pool.put(Thing(pool))


def through_a_shared_object(pool):
    pool.put(Thing())
    pool.put(Thing(pool))


def through_the_victim(pool):
    through_a_shared_object(pool)
    pool._store.rotate()


def through_a_borrow(pool):
    pool.put(Thing(pool.borrow()))


def through_a_borrow_that_is_pooled(pool):
    pool.put(pool.borrow())


def through_a_borrow_in_its_block(pool):
    thing = Thing()
    pool.put(thing)
    block = pool.borrow()
    block.__enter__()
    thing.held = (block,)


def through_a_shard(pool):
    thing = Thing()
    pool.put(thing)
    thing.held = (pool, *pool._store.primary.values())


def through_an_awaitable(pool):
    thing = Thing()
    pool.put(thing)
    coming = pool.borrow().__aenter__()
    if asyncio.iscoroutine(coming):
        coming.close()
    thing.held = (coming, pool)


def through_new(pool):
    pool._new = Thing(pool)


@pytest.mark.parametrize("on_loop", [True, False], ids=["loop", "off-loop"])
@pytest.mark.parametrize(
    "tie",
    [
        through_an_object,
        through_a_shared_object,
        through_the_victim,
        through_a_borrow,
        through_a_borrow_that_is_pooled,
        through_a_borrow_in_its_block,
        through_a_shard,
        through_an_awaitable,
        through_new,
    ],
)
def test_a_pool_in_a_cycle_is_collected(aiopool, tie, on_loop):
    pool = aiopool.Pool()
    pool.put(kept := Thing(pool))

    async def tie_on_loop(pool):
        tie(pool)

    if on_loop:
        asyncio.run(tie_on_loop(pool))
    else:
        tie(pool)
    gone, kept_gone = weakref.ref(pool), weakref.ref(kept)
    del pool, kept
    gc.collect()
    assert gone() is None
    assert kept_gone() is None


def test_an_unreferenced_module_is_freed_with_its_objects(aiopool, child_env):
    if aiopool.implementation == "python":
        pytest.skip("plain classes have nothing to free")
    path = aiopool._native.native.__file__
    assert run_program("pool_garbage.py", child_env, arguments=[path]) == "[]\n"
