"""What can go wrong in C under the buffers: references, memory, allocations that fail, types that are cut off.

As test_native.py, and with its means; everything runs over both implementations.
"""

import sys
import sysconfig

import pytest
from children import run_child

pytestmark = pytest.mark.filterwarnings("ignore:Buffers are not used again on Python 3.11:RuntimeWarning")

PRELUDE = """
import asyncio, contextvars, gc, os, sys, time, warnings, weakref
import aiopool
from children import off_loop, repeat

warnings.filterwarnings("ignore", "Buffers are not used again")
gc.disable()
reuses = aiopool.implementation == "native" or sys.version_info >= (3, 12)
"""

LEAKS = (
    PRELUDE
    + """
def caught(function, *args):
    try:
        function(*args)
    except (ValueError, TypeError, MemoryError, BufferError):
        return
    raise AssertionError("nothing was raised")

pool = aiopool.BufferPool(max_idle_bytes=1 << 20, max_size=1 << 16)
wiping, full = aiopool.BufferPool(wipe=True), aiopool.BufferPool(max_idle_bytes=0)
storage_types = [aiopool._storage.Storage, aiopool._storage.SizeClass, aiopool._storage.Ledger, aiopool.BufferPool]

def one(): pool.acquire(1000)
def three():
    held = [pool.acquire(1000), pool.acquire(1000), pool.acquire(1000)]
def with_block():
    with pool.acquire(1000) as view:
        pass
def slices():
    view = pool.acquire(1000)
    parts = [view[1:], view.cast("b"), memoryview(view), view.toreadonly(), view[::2]]
def its_object(): pool.acquire(1000).obj
def wiped(): wiping.acquire(1000)
def not_kept(): full.acquire(1000)
def oversize(): pool.acquire(70_000)
def empty(): pool.acquire(0)
def negative(): caught(pool.acquire, -1)
def no_number(): caught(pool.acquire, "x")
def too_much(): caught(pool.acquire, 1 << 62)
def overflow(): caught(pool.acquire, 1 << 70)
def off(): off_loop(pool.acquire, 1000)
def steal():
    off_loop(pool.acquire, 5000)
    pool.acquire(5000)
def dropped_while_raising():
    try:
        view = pool.acquire(1000)
        1 // 0
    except ZeroDivisionError:
        pass
def dropped_by_raising_code():
    try:
        [pool.acquire(1000) if index < 3 else 1 // 0 for index in range(5)]
    except ZeroDivisionError:
        pass
def released_while_looked_at():
    import pickle
    view = pool.acquire(1000)
    looking = pickle.PickleBuffer(view)
    caught(view.release)
    looking.release()
def cycle():
    held = [pool.acquire(1000)]
    held.append(held)
    held[1] = None
def a_new_pool():
    short = aiopool.BufferPool(min_size=1, max_size=8)
    short.acquire(1), short.acquire(8)
    view = short.acquire(2)
    return None
def outlives():
    view = aiopool.BufferPool(max_size=1024).acquire(100)
    view[0] = 1
def stats(): pool.stats()
def clear():
    pool.acquire(1000)
    pool.clear()
async def clean_up():
    pool.acquire(1000)
    aiopool.cleanup(); aiopool.cleanup()
    await asyncio.sleep(0)
def bad_pool(): caught(lambda: aiopool.BufferPool(min_size=0))

def look_around():
    gc.collect(); gc.collect()
    return [sys.getrefcount(each) for each in storage_types], sys.getallocatedblocks()

async def main():
    for operation in (
        one, three, with_block, slices, its_object, wiped, not_kept, oversize, empty, negative, no_number, too_much,
        overflow, off, steal, dropped_while_raising, dropped_by_raising_code, released_while_looked_at, cycle,
        a_new_pool, outlives, stats, clear, clean_up, bad_pool,
    ):
        await repeat(operation, 100)
        began = time.perf_counter()
        await repeat(operation, 100)
        cost = (time.perf_counter() - began) / 100
        times = 50_000 if cost < 2e-6 else max(1000, int(0.05 / cost))
        pool.clear(), wiping.clear()
        await repeat(one, 1)
        references, blocks = look_around()
        await repeat(operation, times)
        pool.clear(), wiping.clear()
        await repeat(one, 1)
        references_after, blocks_after = look_around()
        grown = [after - before for before, after in zip(references, references_after)]
        assert max(map(abs, grown)) < times / 20, (operation, times, grown)
        assert abs(blocks_after - blocks) < times / 10 + 200, (operation, times, blocks_after - blocks)
        for each in (pool, wiping, full):
            assert each.stats().bytes_in_use == 0, operation

asyncio.run(main())
print("ok")
"""
)


def test_no_operation_leaks_a_reference_or_a_block(child_env):
    assert run_child(LEAKS, child_env) == "ok\n"


# One allocation after another fails, until the operation has no more of them. (Making a pool is not among these:
# CPython 3.12 and 3.13 crash by themselves when they make a function without memory.)
NO_MEMORY = (
    PRELUDE
    + """
import _testcapi

sys.unraisablehook = lambda unraisable: None  # a release for which there is no memory, in Python

def drop(pool):
    box.clear()

cases = {
    # what happens to a pool; how many buffers are idle and how many are held beforehand; whether off-loop
    "acquire the first": (lambda pool: pool.acquire(1000), 0, 0, False),
    "acquire private": (lambda pool: pool.acquire(1000), 1, 0, False),
    "acquire shared": (lambda pool: [pool.acquire(1000), pool.acquire(1000)], 3, 0, False),
    "acquire stolen": (lambda pool: pool.acquire(1000), 2, 0, "theirs"),
    "acquire off-loop": (lambda pool: pool.acquire(1000), 2, 0, True),
    "acquire oversize": (lambda pool: pool.acquire(100_000), 0, 0, False),
    "drop": (drop, 0, 1, False),
    "drop the fifth and grow": (drop, 5, 3, False),
    "drop off-loop": (drop, 1, 1, True),
    "drop where nobody was": (lambda pool: contextvars.Context().run(drop, pool), 0, 2, False),
}
box = []

def fails(operate, pool, n):
    _testcapi.set_nomemory(n, n + 1)
    try:
        operate(pool)
    except MemoryError:
        return True
    except RuntimeError as error:
        assert str(error) == "can't allocate lock"  # what threading.Lock makes of it
        return True
    finally:
        _testcapi.remove_mem_hooks()
    return False

def idle(pool, count):
    held = [pool.acquire(1000) for _ in range(count)]

async def attempt(name, n):
    operate, idling, holding, where = cases[name]
    pool = aiopool.BufferPool(max_idle_bytes=1 << 16, max_size=1 << 14)
    off_loop(idle, pool, idling) if where else idle(pool, idling)
    box[:] = [pool.acquire(1000) for _ in range(holding)]
    for view in box:
        view[:] = b"held" * 250
    witness = pool.acquire(1000)
    witness[:] = b"w" * 1000
    view = None
    failed = off_loop(fails, operate, pool, n) if where is True else fails(operate, pool, n)
    await asyncio.sleep(0)
    assert all(bytes(view) == b"held" * 250 for view in box), (name, n)
    view = None
    box.clear()
    # Nothing is in two hands, the counts are right, and everything is in working order.
    for _ in range(2):
        held = [pool.acquire(1000) for _ in range(8)]
        for mark, view in enumerate(held):
            view[:] = bytes([mark]) * 1000
        assert all(bytes(view) == bytes([mark]) * 1000 for mark, view in enumerate(held)), (name, n)
        assert bytes(witness) == b"w" * 1000, (name, n)
        del held, view
    stats = pool.stats()
    if aiopool.implementation == "native":
        assert stats.bytes_in_use == 1024, (name, n, stats)
        assert stats.bytes_idle == sum(each.bytes_idle for each in stats.classes), (name, n, stats)
    if reuses:
        made = stats.created
        held = [pool.acquire(1000) for _ in range(6)]
        assert pool.stats().created <= made + 1, (name, n)
        del held
    assert stats.bytes_idle <= 1 << 16
    pool.clear()
    return failed

async def main():
    aiopool.current_processor()
    idle(aiopool.BufferPool(), 1)
    for name in cases:
        failures = 0
        for n in range(150):
            failures += await attempt(name, n)
        assert failures < 130, (name, failures)

asyncio.run(main())
print("ok", flush=True)
os._exit(0)  # CPython's own shutdown is not always up to what it remembers of failed allocations
"""
)


def test_every_allocation_may_fail(child_env):
    pytest.importorskip("_testcapi")
    assert run_child(NO_MEMORY, child_env) == "ok\n"


# --- types and module that are garbage together with what was made of them ---

GARBAGE = """
import contextvars, gc, importlib.util, sys, weakref

def make():
    spec = importlib.util.spec_from_file_location("_native", sys.argv[1])
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)

    class Shelf(native.Base):
        __slots__ = ("__weakref__", "size", "held")
        def _put_slow(self, obj):
            self.held.append(obj)

    class Pool(native.Buffers):
        __slots__ = ("__weakref__", "held")

    native.speed_up(Pool)
    native.bind_pins_to(contextvars.ContextVar("pinned"))
    ledger = native.Ledger(1 << 20)
    size_class = native.SizeClass(ledger, wipe=True)
    shelf, pool = Shelf(), Pool()
    shelf.size, shelf.held = 100, []
    size_class.shelf = weakref.ref(shelf)
    pool._shelves = (shelf,)
    for _ in range(3):
        native.Storage(size_class, 100).lend(10)
    assert ledger.idle == 300
    view = native.Storage(size_class, 100).lend(10)
    other = native.Storage(native.SizeClass(ledger, wipe=False), 100).lend(10)
    pool.held = [pool, shelf, native, view, other, Pool, Shelf, size_class]
    watched = [weakref.ref(each) for each in (native, Pool, Shelf, shelf, pool, view)]
    return watched

gc.disable()
watched = make() + make()
gc.collect()
gc.collect()  # storage is not known to the collector, and its type goes after it
print([ref() for ref in watched if ref() is not None])
"""


def test_a_module_that_is_garbage_goes_with_its_buffers(aiopool, child_env):
    if aiopool.implementation == "python":
        pytest.skip("plain classes have nothing to free")
    path = aiopool._native.native.__file__
    assert run_child(GARBAGE, child_env, arguments=[path]) == "[]\n"


# --- what the C types are asked by somebody who found them ---


def test_the_types_of_the_twin_turn_down_what_is_wrong(aiopool):
    if aiopool.implementation == "python":
        pytest.skip("duck typing")
    native = aiopool._native.native
    ledger = native.Ledger(100)
    size_class = native.SizeClass(ledger, wipe=False)
    storage = native.Storage(size_class, 10)
    assert len(storage) == 10
    for error, wrong in [
        (TypeError, lambda: native.Ledger("x")),
        (TypeError, lambda: native.SizeClass(None, wipe=False)),
        (TypeError, lambda: native.Storage(None, 5)),
        (MemoryError, lambda: native.Storage(size_class, -1)),
        (MemoryError, lambda: native.Storage(size_class, sys.maxsize)),
        (TypeError, lambda: storage.lend("x")),
        (ValueError, lambda: storage.lend(-1)),
        (ValueError, lambda: storage.lend(11)),
        (OverflowError, lambda: storage.lend(1 << 70)),
        (BufferError, lambda: memoryview(storage)),
        (TypeError, lambda: setattr(size_class, "shelf", None)),
        (TypeError, lambda: setattr(size_class, "shelf", aiopool.Pool())),
        (TypeError, lambda: delattr(size_class, "shelf")),
        (TypeError, lambda: setattr(native.Buffers(), "_shelves", ())),
        (TypeError, lambda: setattr(native.Buffers(), "_shelves", [1])),
        (TypeError, lambda: setattr(native.Buffers(), "_shelves", (1, 2))),
        (TypeError, lambda: delattr(native.Buffers(), "_shelves")),
    ]:
        with pytest.raises(error):
            wrong()
    view = storage.lend(10)
    with pytest.raises(ValueError, match="cannot lend 5 bytes of 0"):
        storage.lend(5)
    view.release()
    assert size_class.in_use == 10, "somebody has the storage"
    storage = None
    assert (size_class.in_use, ledger.idle) == (0, 0)


def test_a_pool_that_was_never_made_serves_nobody(aiopool):
    pool = aiopool.BufferPool.__new__(aiopool.BufferPool)
    with pytest.raises((TypeError, AttributeError)):
        pool.acquire(10)


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="about CPython without a GIL")
def test_storage_belongs_to_no_thread(aiopool):
    """What another thread drops is put there and then, whoever made it."""
    import threading

    from loops import in_thread

    if aiopool.implementation == "python":
        pytest.skip("there CPython decides")
    pool = aiopool.BufferPool()
    storage = in_thread(lambda: pool._shelves[0].get())  # made by a thread that has ended, lent here
    view = storage.lend(100)
    del storage, view
    assert pool.stats().bytes_in_use == 0
    box = [pool._shelves[0].get()]
    dropped = threading.Event()

    def drop():
        view = box.pop().lend(100)
        del view
        dropped.set()

    thread = threading.Thread(target=drop)
    thread.start()
    assert dropped.wait(30)
    thread.join()
    assert (pool.stats().bytes_in_use, pool.stats().bytes_idle) == (0, 1024)
