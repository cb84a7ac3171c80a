"""Types, module and objects are freed in one collection, in an order that the collector chooses."""

import contextvars
import gc
import importlib.util
import sys
import weakref


def create():
    spec = importlib.util.spec_from_file_location("_extension", sys.argv[1])
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)

    class Pool(native.PoolBase):
        __slots__ = ("__weakref__", "held")

    class Processor(native.Identity):
        __slots__ = ("__weakref__", "held")

    for name in native.methods(Pool):
        setattr(Pool, name, native.method_descriptor(Pool, name, f"{name}($self)\n--\n\n"))
    native.bind(
        pinned=contextvars.ContextVar("pinned"),
        pin=lambda: None,
        processors={},
        watch=lambda store, processor: native.__doc__,
        check_time=lambda store: None,
    )
    pool, processor, store = Pool(), Processor(), native.Store(1, None, 60.0, "pool")
    pool._store = store
    pool.put(object())
    borrows = [pool.borrow(), pool.borrow()]
    borrows[0].__enter__()
    coming = borrows.pop().__aenter__()
    for obj in (pool, processor, borrows, coming, native):
        pool.put(obj)
    store.rotate()
    pool.put(store.shards())
    kept = store.set_aside()
    pool.put(kept)
    pool.held = processor.held = [pool, processor, store, kept, borrows, Pool, Processor]
    return [weakref.ref(each) for each in (native, Pool, Processor, native.Identity, native.Counters, pool, store)]


gc.disable()
watched = create() + create()
gc.collect()
print([ref() for ref in watched if ref() is not None])
