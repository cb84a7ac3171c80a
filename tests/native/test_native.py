"""What can go wrong in C: references, memory, collections at bad moments, pointers that outlive what they point to.

Everything runs over both implementations. The Python one cannot fail most of it, and so shows that the test is right.
"""

import asyncio
import contextlib
import contextvars
import gc
import sys
import sysconfig
import threading
import weakref

import pytest
from children import run_program
from loops import in_thread, in_threads, loop_thread


class Thing:
    """Something to pool that can hold anything and be watched."""

    def __init__(self, *held):
        self.held = held


# --- references and memory ---


def test_no_operation_leaks_a_reference_or_a_block(child_env):
    assert run_program("pool_leaks.py", child_env) == "ok\n"


def test_every_allocation_may_fail(child_env):
    pytest.importorskip("_testcapi")
    assert run_program("pool_no_memory.py", child_env) == "ok\n"


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="free-threaded CPython 3.13 itself crashes in it, in pure Python too",
)
@pytest.mark.parametrize("operation", ["clear", "cleanup"])
def test_every_allocation_of_the_collector_may_fail(child_env, operation):
    pytest.importorskip("_testcapi")
    assert run_program("pool_no_memory.py", child_env, arguments=[operation]) == "ok\n"


def test_long_chains_do_not_overflow_the_stack(child_env):
    assert run_program("long_chains.py", child_env) == "ok\n"


@pytest.mark.parametrize("collection", ["collection", "no collection"])
def test_at_interpreter_shutdown_nothing_is_printed(child_env, collection):
    flags = ["-X", "dev", "-W", "error", "-W", "ignore:Buffers are not reused on Python 3.11:RuntimeWarning"]
    assert run_program("shutdown.py", child_env, [collection], flags) == "ok\n"


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
    assert made[1]() is None, "nobody has it, and it lives"


def test_a_borrow_whose_object_has_no_repr_still_reports_the_error(aiopool):
    class Broken:
        def __repr__(self):
            raise ZeroDivisionError

    block = aiopool.Pool(Broken).borrow()
    block.__enter__()
    with pytest.raises(RuntimeError, match=r"holds <.*Broken object at 0x[0-9a-f]+> already"):
        block.__enter__()


def test_a_borrow_goes_on_a_stack(aiopool):
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
    """Nobody should share a borrow; but memory must not suffer."""
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
    """Without a GIL the off-loop counts may be off; taking back what was not counted must not raise."""
    pool = aiopool.Pool()

    def churn():
        for _ in range(3000):
            pool.put(Thing())
            pool.get()

    in_threads([churn] * 4)
    counters = aiopool._core.shard.Counters()
    counters.rejected -= 1
    assert counters.rejected == -1


# --- what the C types are asked by code that found them ---


@pytest.fixture
def native(aiopool):
    """The C extension."""
    if aiopool.implementation == "python":
        pytest.skip("duck typing")
    return aiopool._native.native


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
        (TypeError, lambda: native.quiesce(None)),
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
    # In working order, still.
    store.keep(processor)
    assert store.take() is processor


def test_a_pool_whose_attributes_are_deleted_still_raises(aiopool):
    """In Python an attribute can be deleted; in C it cannot. Neither crashes."""
    for name in ("_new", "_reset", "_store"):
        for setting in (None, list):
            pool = aiopool.Pool(setting, reset=None if setting is None else len)
            with contextlib.suppress(TypeError, AttributeError):
                delattr(pool, name)
            for use in (pool.get, lambda pool=pool: pool.put([]), lambda pool=pool: pool.borrow().__enter__()):
                with contextlib.suppress(AttributeError):
                    use()


def test_a_pool_without_its_init_raises(aiopool):
    pool = aiopool.Pool.__new__(aiopool.Pool)
    for use in (pool.get, lambda: pool.put(5), lambda: pool.borrow().__enter__(), pool.stats, pool.clear):
        with pytest.raises((AttributeError, TypeError)):
            use()


def test_contents_that_are_brought_back_twice_are_emptied(aiopool, native):
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


# --- interpreters ---


@pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="with a GIL of their own since 3.12, which crashes by itself once two of them import asyncio",
)
def test_each_interpreter_has_pools_of_its_own(child_env):
    assert run_program("interpreters.py", child_env) == "ok\n"


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


# --- pins and shards that are remembered ---


def contents(pool, id):
    """What lies in one processor's primary shard."""
    shard = pool._store.primary.get(id)
    return [] if shard is None else [*shard.private, *shard.shared]


def bound_to(aiopool, processor):
    """A context in which `processor` is pinned, rightly or not."""
    context = contextvars.copy_context()
    context.run(aiopool._core.processor.pinned.set, processor)
    return context


def test_a_context_that_is_bound_to_another_thread_is_not_believed(aiopool):
    pool = aiopool.Pool()
    thing = Thing()

    async def main():
        own = aiopool.current_processor()
        for foreign in (other.call(aiopool.current_processor), aiopool._core.processor.UNBOUND, dead):
            pool.put(thing)  # so that this context's pin is the last one
            assert bound_to(aiopool, foreign).run(pool.get) is thing
            assert pool.get() is None
            bound_to(aiopool, foreign).run(pool.put, thing)
            assert contents(pool, own.id) == [thing]
            assert pool.get() is thing
            assert set(pool._store.primary) == {own.id}

    async def here():
        return aiopool.current_processor()

    dead = in_thread(asyncio.run, here())
    assert dead.thread_id is None
    with loop_thread() as other:
        asyncio.run(main())


def test_a_context_that_was_bound_here_is_off_loop_elsewhere(aiopool):
    pool = aiopool.Pool()
    mine, other = Thing(), Thing()

    async def main():
        pool.put(mine)
        context = contextvars.copy_context()
        assert in_thread(context.run, pool.get) is None, "private is private"
        in_thread(context.run, pool.put, other)
        assert contents(pool, 0) == [other]
        assert pool.get() is mine

    asyncio.run(main())


def test_a_pin_ends_with_its_thread(aiopool):
    """Threads come and go; the idents and the ids are used again, and the contexts of all are kept."""
    pool = aiopool.Pool()
    kept = []

    async def use():
        own = aiopool.current_processor()
        for context in kept[-3:]:
            context.run(pool.put, Thing())
            assert len(contents(pool, own.id)) == 1
            assert context.run(pool.get) is not None
        kept.append(contextvars.copy_context())
        return own.id

    assert len({in_thread(asyncio.run, use()) for _ in range(100)}) == 1


def test_contexts_of_all_threads_in_all_threads_at_once(aiopool):
    """No object is ever in two hands, whichever context an operation runs in."""
    pools = [aiopool.Pool(Thing) for _ in range(3)]
    contexts = [contextvars.Context()]
    wrong = []
    barrier = threading.Barrier(4)

    def use(pool, me):
        thing = pool.get()
        if thing.held:
            wrong.append((me, thing.held))
        thing.held = (me,)
        more = pool.get()
        if more is thing:
            wrong.append(me)
        pool.put(more)
        if thing.held != (me,):
            wrong.append((me, thing.held))
        thing.held = ()
        pool.put(thing)

    async def main():
        aiopool.current_processor()
        contexts.append(contextvars.copy_context())
        barrier.wait(30)
        own = [context.copy() for context in contexts]
        for turn in range(2500):
            own[turn % len(own)].run(use, pools[turn % len(pools)], threading.get_ident())
            if turn % 500 == 0:
                aiopool.cleanup()
                await asyncio.sleep(0)

    in_threads([lambda: asyncio.run(main())] * 4)
    assert wrong == []


def test_more_pools_than_a_processor_remembers(aiopool):
    pools = [aiopool.Pool() for _ in range(50)]

    async def main():
        for index, pool in enumerate(pools):
            pool.put(index + 1)
        for step in (1, 7, 8, 16, 49):
            for turn in range(300):
                index = turn * step % len(pools)
                assert pools[index].get() == index + 1
                pools[index].put(index + 1)
        for pool in pools[::2]:
            pool._store.rotate()
        assert [pool.get() for pool in pools] == list(range(1, 51))

    asyncio.run(main())


def test_ten_thousand_pools_of_one_processor(aiopool):
    """A shard that is gone is never taken for one of a later pool, nor for a later one of the same pool."""
    steady = aiopool.Pool()

    async def main():
        for index in range(10_000):
            pool = aiopool.Pool()
            assert pool.get() is None
            pool.put(index)
            steady.put(index)
            if index % 3 == 0:
                pool.clear()
                assert pool.get() is None
                pool.put(index)
            assert pool.get() == index
            assert steady.get() == index
            if index % 100 == 0:
                steady._store.rotate()
                await asyncio.sleep(0)

    asyncio.run(main())


# --- finalizers in the middle of it ---


class Busybody:
    """Uses a pool in every way as it dies."""

    def __init__(self, pool, log):
        self.pool, self.log = pool, log

    def __del__(self):
        pool = self.pool() if isinstance(self.pool, weakref.ref) else self.pool
        if pool is None:
            self.log.append("gone")
            return
        taken = pool.get()
        for _ in range(6):
            pool.put(Thing())
        with pool.borrow():
            pass
        pool.stats()
        for _ in range(3):
            pool.get()
        self.log.append(taken)


@pytest.mark.parametrize("on_loop", [True, False], ids=["loop", "off-loop"])
@pytest.mark.parametrize("strong", [True, False], ids=["strong", "weak"])
@pytest.mark.parametrize("how", ["cleanup", "clear", "dropped", "rotated", "set aside"])
def test_finalizers_may_use_the_pool_that_drops_them(aiopool, how, strong, on_loop):
    pool = aiopool.Pool()
    log = []

    async def main():
        nonlocal pool
        for _ in range(20):
            pool.put(Busybody(pool if strong else weakref.ref(pool), log))
        if how == "cleanup":
            aiopool.cleanup()
            aiopool.cleanup()
        elif how == "clear":
            pool.clear()
        elif how == "rotated":
            pool._store.rotate()
            pool._store.rotate()
        elif how == "set aside":
            pool._store.set_aside()
        pool = None
        await asyncio.sleep(0.01)
        gc.collect()
        aiopool.cleanup()
        aiopool.cleanup()
        await asyncio.sleep(0.01)

    if on_loop:
        asyncio.run(main())
    else:
        asyncio.run(_in_a_thread(main))
    gc.collect()
    assert len(log) == 20


async def _in_a_thread(main):
    await asyncio.to_thread(contextvars.Context().run, _run_off_loop, main)


def _run_off_loop(main):
    """Run a coroutine that only sleeps, on a thread without a loop."""

    async def no_sleep(seconds):
        pass

    coroutine = main()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", no_sleep)
        with contextlib.suppress(StopIteration):
            coroutine.send(None)


# --- without a GIL ---


def test_loops_at_work_amid_steals_and_cleanup_cycles(aiopool):
    """A short run of what a stress test does for hours."""
    pool = aiopool.Pool(Thing)
    stop = threading.Event()
    errors = []

    async def work():
        me = threading.get_ident()
        while not stop.is_set():
            held = [pool.get() for _ in range(3)]
            for thing in held:
                if thing.held:
                    errors.append("in two hands")
                thing.held = (me,)
            for thing in held:
                if thing.held != (me,):
                    errors.append("in two hands")
                thing.held = ()
                pool.put(thing)
            await asyncio.sleep(0)

    def clean_up():
        while not stop.is_set():
            aiopool.cleanup()
            pool.clear()
            pool.stats()

    timer = threading.Timer(0.6, stop.set)
    timer.start()
    try:
        in_threads([lambda: asyncio.run(work())] * 3 + [clean_up])
    finally:
        stop.set()
        timer.join()
    assert errors == []
