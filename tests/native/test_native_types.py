"""Misuse of the private C types: wrong arguments raise, and nothing crashes."""

import contextlib

import pytest
from shared import Thing


def rejects(error, wrong):
    with pytest.raises(error):
        wrong()


def test_private_types_reject_wrong_arguments(native):
    counters, budget = native.Counters(), native.IdleBudget(100, ())
    store = native.Store(1, None, 60.0, "pool")
    shard, processor = native.Shard(counters), native.Identity()
    for error, wrong in [
        (ValueError, lambda: native.Shard(counters, -1)),
        (TypeError, lambda: native.Shard(None)),
        (TypeError, lambda: native.Shard(counters, "x")),
        (OverflowError, lambda: native.Shard(counters, 1 << 70)),
        (AttributeError, lambda: setattr(shard, "counters", native.Counters())),
        (AttributeError, lambda: delattr(shard, "counters")),
        (TypeError, lambda: delattr(counters, "puts")),
        (TypeError, lambda: setattr(counters, "puts", "x")),
        (OverflowError, lambda: setattr(counters, "puts", 1 << 70)),
        (TypeError, lambda: native.IdleBudget("x", ())),
        (TypeError, lambda: native.IdleBudget(1.5, ())),
        (TypeError, lambda: native.IdleBudget(None, ())),
        (ValueError, lambda: native.IdleBudget(-1, ())),
        (ValueError, lambda: native.IdleBudget(-(1 << 70), ())),
        (TypeError, lambda: native.IdleBudget(100)),
        (TypeError, lambda: native.IdleBudget(100, [store])),
        (TypeError, lambda: native.IdleBudget(100, (store, 5))),
        (AttributeError, lambda: setattr(budget, "used", 5)),
        (AttributeError, lambda: delattr(budget, "limit")),
        (TypeError, lambda: native.SizeClass(10, None, budget, False, 0)),
        (TypeError, lambda: native.SizeClass(10, store, None, False, 0)),
        (ValueError, lambda: native.SizeClass(-1, store, budget, False, 0)),
        (OverflowError, lambda: native.SizeClass(1 << 70, store, budget, False, 0)),
        (ValueError, lambda: native.SizeClass(10, store, budget, False, -1)),
        (ValueError, lambda: native.SizeClass(10, store, budget, False, 3)),
        (OverflowError, lambda: native.SizeClass(10, store, budget, False, 1 << 70)),
        (ValueError, lambda: native.Store(-1, None, 60.0, "pool")),
        (ValueError, lambda: native.Store(1, -1, 60.0, "pool")),
        (TypeError, lambda: native.Store(1, "x", 60.0, "pool")),
        (TypeError, lambda: native.Store(1, None, "x", "pool")),
        (TypeError, lambda: native.Store(1, None, 60.0, 5)),
        (TypeError, lambda: store.bring_back(None)),
        (TypeError, lambda: store.bring_back(store)),
        (TypeError, lambda: store.bring_back(native.Store(1, None, 60.0, "other").set_aside())),
        (TypeError, lambda: store.count_asked("x")),
        (OverflowError, lambda: store.count_asked(1 << 70)),
        (TypeError, lambda: native.Block()),
        (TypeError, lambda: native.Shards()),
        (TypeError, lambda: native.Contents()),
        (TypeError, lambda: native.Borrow()),
        (TypeError, lambda: native.Ready()),
        (TypeError, lambda: native.bind(pinned=5)),
        (TypeError, lambda: native.bind(5)),
        (TypeError, lambda: native.bind(processors=[])),
        (TypeError, lambda: native.methods(int)),
        (TypeError, lambda: native.methods(5)),
        (TypeError, lambda: native.method_descriptor(int, "get", "get()")),
        (ValueError, lambda: setattr(processor, "id", -1)),
        (ValueError, lambda: setattr(processor, "id", 1 << 40)),
        (OverflowError, lambda: setattr(processor, "id", 1 << 70)),
        (TypeError, lambda: setattr(processor, "id", "x")),
        (TypeError, lambda: setattr(processor, "thread_id", "x")),
        (TypeError, lambda: setattr(processor, "wakes_at", "x")),
        (TypeError, lambda: delattr(processor, "wakes_at")),
    ]:
        rejects(error, wrong)
    with pytest.raises((ValueError, TypeError)):
        del processor.id
    # It still works.
    store.keep(processor)
    assert store.take() is processor


def test_a_pool_whose_attributes_are_deleted_still_raises(aiopool):
    """In Python an attribute can be deleted, in C it cannot. Neither crashes."""
    for name in ("_new", "_reset", "_store"):
        for setting in (None, list):
            pool = aiopool.Pool(setting, reset=None if setting is None else len)
            with contextlib.suppress(TypeError, AttributeError):
                delattr(pool, name)
            for use in (pool.get, lambda pool=pool: pool.put([]), lambda pool=pool: pool.borrow().__enter__()):
                with contextlib.suppress(AttributeError):
                    use()


def test_a_pool_whose_init_was_not_called_raises(aiopool):
    pool = aiopool.Pool.__new__(aiopool.Pool)
    for use in (pool.get, lambda: pool.put(5), lambda: pool.borrow().__enter__(), pool.stats, pool.clear):
        with pytest.raises((AttributeError, TypeError)):
            use()


def test_contents_that_are_brought_back_twice_are_empty_the_second_time(aiopool, native):
    pool = aiopool.Pool()
    pool.put(one := Thing())
    kept = pool._store.set_aside()
    pool.put(Thing())
    assert sum(map(len, pool._store.bring_back(kept))) == 1
    assert pool.get() is one
    pool.put(one)
    pool._store.bring_back(kept)
    pool.put(Thing())
    assert pool.stats().idle == 1
