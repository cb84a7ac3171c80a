"""Like pool_garbage.py, with a buffer pool, its blocks, and views over them."""

import contextvars
import gc
import importlib.util
import sys
import weakref


def create():
    spec = importlib.util.spec_from_file_location("_extension", sys.argv[1])
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)

    class Pool(native.BufferPoolBase):
        __slots__ = ("__weakref__", "held")

        def _acquire_slow(self, n):
            return self._size_classes[0].acquire(n)

    for name in native.methods(Pool):
        setattr(Pool, name, native.method_descriptor(Pool, name, f"{name}($self, n)\n--\n\n"))
    native.bind(
        pinned=contextvars.ContextVar("pinned"),
        pin=lambda: None,
        processors={},
        watch=lambda store, processor: native.__doc__,
        check_time=lambda store: None,
        record_holder=lambda size, stands_for: native.__doc__,
    )
    stores = [native.Store(1, None, 60.0, "buffers") for _ in range(2)]
    budget = native.IdleBudget(1 << 20, (stores[0],))
    size_class = native.SizeClass(100, stores[0], budget, True, 1)
    oversize = native.SizeClass(0, stores[1], budget, False, 0)
    pool = Pool()
    pool._size_classes = (size_class,)
    views = [pool.acquire(10) for _ in range(4)]
    views.pop(), views.pop(), views.pop()
    assert budget.used == 300
    stores[0].rotate()
    views.append(pool.acquire(100))
    views.append(oversize.acquire(10))
    assert (budget.used, size_class.bytes_in_use(), oversize.bytes_in_use()) == (200, 200, 10)
    pool.held = [pool, native, views, Pool, size_class, oversize, stores]
    return [weakref.ref(each) for each in (native, Pool, pool, *stores, *views)]


gc.disable()
watched = create() + create()
gc.collect()
gc.collect()  # the collector does not know blocks and size classes, and their types are freed after them
print([ref() for ref in watched if ref() is not None])
