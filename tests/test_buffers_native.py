"""What can go wrong in C under the buffers: references, memory, allocations that fail, types that are cut off.

As test_native.py, and with its means; everything runs over both implementations.
"""

import sys
import sysconfig

import pytest
from children import run_program

pytestmark = pytest.mark.filterwarnings("ignore:Buffers are not reused on Python 3.11:RuntimeWarning")


def test_no_operation_leaks_a_reference_or_a_block(child_env):
    assert run_program("buffer_leaks.py", child_env) == "ok\n"


def test_every_allocation_may_fail(child_env):
    pytest.importorskip("_testcapi")
    assert run_program("buffer_no_memory.py", child_env) == "ok\n"


def test_a_module_that_is_garbage_goes_with_its_buffers(aiopool, child_env):
    if aiopool.implementation == "python":
        pytest.skip("plain classes have nothing to free")
    path = aiopool._native.native.__file__
    assert run_program("buffer_garbage.py", child_env, arguments=[path]) == "[]\n"


# --- what the C types are asked by somebody who found them ---


def test_x(aiopool):
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
