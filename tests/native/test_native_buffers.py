"""Mistakes that the C code of buffers can make: with references, with memory, after failed allocations, in garbage.

Like test_native.py, it runs over both implementations.
"""

import gc
import sys
import threading

import pytest
from children import run_program
from loops import PATIENCE, WHERE, in_thread
from shared import FREE_THREADED


def test_no_operation_leaks_a_reference_or_a_block(child_env):
    assert run_program("buffer_leaks.py", child_env) == "ok\n"


def test_every_allocation_may_fail(child_env):
    pytest.importorskip("_testcapi")
    assert run_program("buffer_no_memory.py", child_env) == "ok\n"


def test_a_garbage_module_is_freed_with_its_buffers(aiopool, child_env):
    if aiopool.implementation == "python":
        pytest.skip("plain classes have nothing to free")
    path = aiopool._native.native.__file__
    assert run_program("buffer_garbage.py", child_env, arguments=[path]) == "[]\n"


# --- the C types, used directly ---


def size_class(native, size=1024, store=None, budget=None):
    """A size class like those of a buffer pool, or one with a store that it shares."""
    store = native.Store(1, None, 60.0, "buffers") if store is None else store
    budget = native.IdleBudget(1 << 20, (store,)) if budget is None else budget
    return native.SizeClass(size, store, budget, False, 0)


@WHERE
def test_a_size_class_rejects_wrong_sizes(native, where):
    def use():
        small, oversize = size_class(native, 10), size_class(native, 0)
        for error, n in [
            (TypeError, "x"),
            (TypeError, None),
            (ValueError, -1),
            (ValueError, 11),
            (OverflowError, 1 << 70),
        ]:
            with pytest.raises(error):
                small.acquire(n)
        for error, n in [(ValueError, -1), (MemoryError, 1 << 62), (OverflowError, 1 << 70)]:
            with pytest.raises(error):
                oversize.acquire(n)
        assert [len(small.acquire(n)) for n in (0, 1, 10)] == [0, 1, 10]
        assert len(oversize.acquire(5000)) == 5000
        assert (small.bytes_in_use(), oversize.bytes_in_use()) == (0, 0)

    where(use)


@WHERE
@pytest.mark.parametrize("through", ["size class", "buffer pool"])
def test_a_foreign_object_in_a_size_class_is_rejected(aiopool, native, where, through):
    """Python code may put anything in the store: another class's blocks, or one block twice."""
    pool = aiopool.BufferPool(min_size=1024, max_size=4096)

    def use():
        ours, larger = pool._size_classes[0], pool._size_classes[2]
        acquire = ours.acquire if through == "size class" else pool.acquire
        larger.acquire(4096)
        other = larger.store.take()
        for foreign in (None, object(), 5, b"", ours, ours.store, other, size_class(native, 10), pool):
            ours.store.keep(foreign)
            references = sys.getrefcount(foreign)
            with pytest.raises(TypeError, match="not an idle block"):
                acquire(1000)
            if foreign not in (None, 5, b""):  # other code refers to these too
                assert sys.getrefcount(foreign) == references - 1
        acquire(1000)[:] = b"x" * 1000
        block = ours.store.take()
        ours.store.keep(block)
        ours.store.keep([])  # so that the double put is not seen
        ours.store.keep(block)
        served = []
        for _ in range(4):
            try:
                served.append(acquire(1000))
            except TypeError:
                pass
        for mark, view in enumerate(served):
            view[:] = bytes([mark]) * 1000
        assert all(bytes(view) == bytes([mark]) * 1000 for mark, view in enumerate(served)), "one block in two views"
        del view, served, block, other
        pool.clear()

    where(use)
    assert (pool.stats().bytes_in_use, pool._budget.used) == (0, 0)


def test_size_classes_that_share_a_store_never_mix_their_blocks(native):
    store = native.Store(1, None, 60.0, "buffers")
    budget = native.IdleBudget(1 << 20, (store,))
    small, large = size_class(native, 10, store, budget), size_class(native, 1000, store, budget)
    small.acquire(10)
    with pytest.raises(TypeError, match="not an idle block"):
        large.acquire(1000)
    large.acquire(1000)[:] = b"x" * 1000
    with pytest.raises(TypeError, match="not an idle block"):
        small.acquire(10)
    store.clear()
    assert budget.used == 0


def test_nothing_can_be_done_with_an_idle_block_except_hold_it(native):
    ours = size_class(native)
    ours.acquire(10)
    block = ours.store.take()
    assert len(block) == 1024
    with pytest.raises(BufferError, match="idle"):
        memoryview(block)
    assert ours.budget.used == 1024, "an unused block takes up memory"
    del block
    assert ours.budget.used == 0


def test_a_block_that_is_held_comes_back_when_it_is_dropped(native):
    ours = size_class(native)
    block = ours.acquire(10).obj
    assert ours.bytes_in_use() == 1024
    view = memoryview(block)
    del block
    assert (ours.bytes_in_use(), ours.budget.used) == (1024, 0)
    del view
    assert (ours.bytes_in_use(), ours.budget.used) == (0, 1024)
    ours.store.clear()


@pytest.mark.parametrize("limit", [0, 1, 1023, 1024, (1 << 63) - 1, 1 << 63, 1 << 80, True])
def test_idle_budgets_with_odd_limits(native, limit):
    ours = size_class(native, 1024, budget=native.IdleBudget(limit, ()))
    held = [ours.acquire(10) for _ in range(3)]
    held.clear()
    kept = 3 if limit > 1024 else 1 if limit == 1024 else 0
    assert (ours.budget.used, ours.bytes_in_use()) == (kept * 1024, 0)
    ours.budget.close()
    assert ours.budget.limit == 0
    held = [ours.acquire(10) for _ in range(3)]
    held.clear()
    assert (ours.budget.used, ours.bytes_in_use()) == (0, 0)


def test_a_buffer_pool_rejects_wrong_size_classes(native):
    class Pool(native.BufferPoolBase):
        pass

    sized = {size: size_class(native, size) for size in (0, 1, 2, 3, 4, 6, 8, 1000)}
    for error, wrong in [
        (TypeError, ()),
        (TypeError, [sized[1]]),
        (TypeError, (1, 2)),
        (TypeError, None),
        (TypeError, (sized[1], object())),
        (ValueError, (sized[0],)),
        (ValueError, (sized[0], sized[1])),
        (ValueError, (sized[1], sized[1])),
        (ValueError, (sized[2], sized[1])),
        (ValueError, (sized[1], sized[3], sized[2])),
        (ValueError, (sized[1], sized[2], sized[3], sized[3])),
    ]:
        pool = Pool()
        with pytest.raises(error):
            pool._size_classes = wrong
        assert pool._size_classes is None
        with pytest.raises(TypeError):
            del pool._size_classes
    for right in (sized[1],), (sized[1], sized[2]), (sized[2], sized[1000]), (sized[1], sized[2], sized[3], sized[8]):
        pool = Pool()
        pool._size_classes = right
        with pytest.raises(TypeError):
            pool._size_classes = right
        with pytest.raises(TypeError):
            del pool._size_classes


def test_a_subclass_with_its_own_finalizer_frees_idle_blocks(reusing):
    class Mine(reusing.BufferPool):
        def __del__(self):
            log.append(self)

    log = []
    pool = Mine()
    pool.acquire(10)
    view = pool.acquire(1000)
    budget = pool._budget
    del pool
    gc.collect()
    log.pop()
    gc.collect()
    assert budget.used == 0, "idle blocks outlive their pool"
    del view
    assert budget.used == 0, "a block that came back to no pool is kept"


def test_a_pool_whose_init_was_not_called_raises(aiopool):
    pool = aiopool.BufferPool.__new__(aiopool.BufferPool)
    with pytest.raises((TypeError, AttributeError)):
        pool.acquire(10)


@pytest.mark.skipif(not FREE_THREADED, reason="about CPython without a GIL")
def test_blocks_belong_to_no_thread(aiopool):
    """A block that another thread drops is put at once, whichever thread created it."""
    if aiopool.implementation == "python":
        pytest.skip("CPython frees the objects of Python code")
    pool = aiopool.BufferPool()
    size_class = pool._size_classes[0]
    view = in_thread(lambda: pool.acquire(100))  # created by a thread that has ended
    block = view.obj
    view.release()
    del view, block
    assert pool.stats().bytes_in_use == 0
    box = [memoryview(in_thread(lambda: size_class.acquire(100)).obj)]
    dropped = threading.Event()

    def drop():
        box.pop().release()
        dropped.set()

    thread = threading.Thread(target=drop)
    thread.start()
    assert dropped.wait(PATIENCE)
    thread.join()
    assert (pool.stats().bytes_in_use, pool.stats().bytes_idle) == (0, 1024)
