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
from children import run_child
from loops import in_thread, in_threads, loop_thread


class Thing:
    """Something to pool that can hold anything and be watched."""

    def __init__(self, *held):
        self.held = held


# --- references and memory ---

# Every operation and every error path, 100,000 times; those of more than 5 µs as often as 0.05 s allows.
LEAKS = """
import asyncio, contextlib, contextvars, gc, sys, time, aiopool
from children import off_loop, repeat

things = [object() for _ in range(4)]
types = [aiopool.Pool, aiopool._core.shard.Shard, aiopool._core.shard.Counters, aiopool._core.processor.Processor, aiopool._pool.PoolBase,
         aiopool._pool.Borrow]
gc.disable()

def raising(error):
    raise error

def caught(function, *args):
    try:
        function(*args)
    except (ValueError, RuntimeError, TypeError):
        return
    raise AssertionError("nothing was raised")

def new_that_enters():
    if entering:
        entering.pop().__enter__()
    return things[0]

pool, empty, fresh = aiopool.Pool(), aiopool.Pool(), aiopool.Pool(lambda: things[0])
refusing = aiopool.Pool(reset=lambda obj: False)
failing = aiopool.Pool(reset=lambda obj: raising(ValueError()))
broken = aiopool.Pool(lambda: raising(ValueError()))
full = aiopool.Pool(max_idle=0)
entered = aiopool.Pool(new_that_enters)
entering = []
unused = object()

class Own(aiopool.Pool):
    def get(self): return things[0]
    def put(self, obj): pass

own = Own()

def private(): pool.put(pool.get())

def shared():
    held = [pool.get(), pool.get(), pool.get()]
    for obj in held:
        pool.put(obj)

def miss(): empty.get()
def made(): fresh.get()
def new_raises(): caught(broken.get)
def put_none(): pool.put(None)

def double_put():
    obj = empty.put(things[0])
    caught(empty.put, things[0])
    empty.get()

def reset_refuses(): refusing.put(things[0])
def reset_raises(): caught(failing.put, things[0])
def max_idle_refuses(): full.put(things[0])
def borrow():
    with pool.borrow():
        pass
def borrow_of_a_subclass():
    with own.borrow():
        pass
def borrow_nothing():
    with empty.borrow():
        pass
def borrow_unused(): pool.borrow()
def borrow_raises():
    try:
        with fresh.borrow():
            raise ValueError
    except ValueError:
        pass
async def borrow_async():
    async with pool.borrow():
        pass
async def borrow_async_raises():
    try:
        async with fresh.borrow():
            raise ValueError
    except ValueError:
        pass
def borrow_never_awaited(): fresh.borrow().__aenter__().close() if aiopool.implementation == "python" \\
    else fresh.borrow().__aenter__()
def borrow_on_a_stack():
    with contextlib.ExitStack() as stack:
        stack.enter_context(pool.borrow())
def borrow_dropped_inside(): fresh.borrow().__enter__()
def borrow_entered_twice():
    with pool.borrow() as _, fresh.borrow() as __:
        block = fresh.borrow()
        block.__enter__()
        caught(block.__enter__)
def borrow_entered_by_its_own_new():
    block = entered.borrow()
    entering.append(block)
    block.__enter__()
    block.__exit__(None, None, None)
    entered.get()
def borrow_called_badly(): caught(pool.borrow().__exit__, None)
def steal():
    off_loop(empty.put, things[1])
    assert empty.get() is things[1]
def victim():
    empty.put(things[1])
    empty._store.rotate()
    assert empty.get() is things[1]
    empty._store.rotate(); empty._store.rotate()
def fill_and_clear():
    fresh.fill(3)
    assert fresh.clear() == 3
async def clean_up():
    fresh.fill(3)
    aiopool.cleanup(); aiopool.cleanup()
    await asyncio.sleep(0)
def stats(): pool.stats()
def look(): pool._store.primary, pool._keeps_all, repr(pool), [shard.private for shard in pool._store.primary.values()]
def pin_anew(): contextvars.Context().run(aiopool.current_processor)
def get_in_a_new_context(): contextvars.Context().run(lambda: pool.put(pool.get()))
def get_off_loop(): off_loop(empty.get)
def a_new_pool():
    short = aiopool.Pool()
    short.put(things[0]); short.put(things[1])
    short.get()
def bad_arguments(): caught(pool.put); caught(pool.get, 1)

def look_around():
    gc.collect(); gc.collect()
    return [sys.getrefcount(each) for each in (*things, unused, *types)], sys.getallocatedblocks()

def refill():
    # The collections in look_around are cleanup cycles.
    for kept in (pool, fresh, empty, entered):
        kept.clear()
    for thing in things:
        pool.put(thing)

async def main():
    for operation in (
        private, shared, miss, made, new_raises, put_none, double_put, reset_refuses, reset_raises, max_idle_refuses,
        borrow, borrow_of_a_subclass, borrow_nothing, borrow_unused, borrow_raises, borrow_async, borrow_async_raises,
        borrow_never_awaited, borrow_on_a_stack, borrow_dropped_inside, borrow_entered_twice,
        borrow_entered_by_its_own_new, borrow_called_badly, steal, victim, fill_and_clear, clean_up, stats, look,
        pin_anew, get_in_a_new_context, get_off_loop, a_new_pool, bad_arguments,
    ):
        refill()
        await repeat(operation, 200)
        began = time.perf_counter()
        await repeat(operation, 200)
        cost = (time.perf_counter() - began) / 200
        times = 100_000 if cost < 5e-6 else max(1000, int(0.05 / cost))
        refill()
        await repeat(put_none, 1)
        references, blocks = look_around()
        refill()
        await repeat(operation, times)
        refill()
        await repeat(put_none, 1)
        references_after, blocks_after = look_around()
        grown = [after - before for before, after in zip(references, references_after)]
        # One kept for each repetition would show as `times`; what caches and the loop do is far below this.
        assert max(map(abs, grown)) < times / 20, (operation, times, grown)
        assert abs(blocks_after - blocks) < times / 10 + 200, (operation, times, blocks_after - blocks)

asyncio.run(main())
print("ok")
"""


def test_no_operation_leaks_a_reference_or_a_block(child_env):
    assert run_child(LEAKS, child_env) == "ok\n"


# One allocation after another fails, until the operation has no more of them.
NO_MEMORY = """
import asyncio, contextvars, gc, os, sys, _testcapi, aiopool
from children import off_loop

sys.unraisablehook = lambda unraisable: None  # generators that are closed without memory

gc.disable()

class Thing:
    __slots__ = ("__weakref__",)

def block(pool):
    with pool.borrow() as obj:
        pass

def block_raises(pool):
    try:
        with pool.borrow():
            raise ValueError
    except ValueError:
        pass

async def async_block(pool):
    async with pool.borrow():
        pass

def async_block_by_hand(pool):
    try:
        async_block(pool).send(None)
    except StopIteration:
        pass

def keep(pool, count):
    for thing in things[:count]:
        pool.put(thing)

def put_many(pool):
    for thing in things:
        pool.put(thing)

def clean_up(pool):
    aiopool.cleanup()

def in_new_context(function):
    return lambda pool: contextvars.Context().run(function, pool)

def off(function):
    function.off = True
    return function

get = aiopool.Pool.get
cases = {
    # what happens to a pool; how many things are put beforehand; whether off-loop, so that they must be stolen
    "get private": (get, 1, False),
    "get shared": (get, 4, False),
    "get nothing": (get, 0, False),
    "steal": (get, 3, True),
    "pin": (in_new_context(get), 4, False),
    "put": (lambda pool: pool.put(things[-1]), 0, False),
    "put the fifth and grow": (lambda pool: pool.put(things[-1]), 5, False),
    "put in a new context": (in_new_context(lambda pool: pool.put(things[-1])), 2, False),
    "put many": (put_many, 0, False),
    "put off-loop": (off(lambda pool: pool.put(things[-1])), 2, True),
    "get off-loop": (off(lambda pool: pool.get()), 2, True),
    "borrow": (block, 2, False),
    "borrow and raise": (block_raises, 2, False),
    "borrow async": (async_block_by_hand, 2, False),
    "clear": (lambda pool: pool.clear(), 4, False),
    "cleanup": (clean_up, 4, False),
    "victim": (get, 4, "rotate"),
    "a new pool": (lambda pool: aiopool.Pool().put(things[-1]), 0, False),
}

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

async def attempt(name, n):
    operate, count, how = cases[name]
    pool = aiopool.Pool()
    if how is True:
        off_loop(keep, pool, count)
    else:
        keep(pool, count)
    if how == "rotate":
        pool._store.rotate()
    if hasattr(operate, "off"):
        failed = off_loop(fails, operate, pool, n)
    else:
        failed = fails(operate, pool, n)
    await asyncio.sleep(0)
    found = []
    while (thing := pool.get()) is not None:
        found.append(thing)
    assert len({id(thing) for thing in found}) == len(found), (name, n, "an object is in two places")
    assert all(any(thing is other for other in things) for thing in found)
    lost = count - len(found)
    if name not in ("clear", "cleanup"):
        assert lost <= 1, (name, n, failed, lost)
    del found
    # Everything is in working order: a shared list that others reach, and locks that are free.
    for thing in things:
        pool.put(thing)
    assert pool.stats().idle == len(things), (name, n, pool.stats())
    stolen = []
    while (thing := off_loop(pool.get)) is not None:
        stolen.append(thing)
    assert len(stolen) == len(things) - 1, (name, n, len(stolen))
    del stolen, thing
    assert not aiopool._collector._cycling.locked(), (name, n)
    assert pool.clear() == 1
    for _ in range(20):
        await asyncio.sleep(0)
    assert not aiopool._core.freeing._queue, (name, n, "what is doomed is never dropped")
    return failed

async def main():
    aiopool.current_processor()
    for name in sys.argv[1:] or [name for name in cases if name not in ("clear", "cleanup")]:
        failures = 0
        for n in range(120):
            failures += await attempt(name, n)
        # The last attempts had no allocation left to fail. (Some never fail: what fails is tried again.)
        assert failures < 100, (name, failures)

things = [Thing() for _ in range(8)]
asyncio.run(main())
gc.collect()
references = [sys.getrefcount(thing) for thing in things]
assert len(set(references)) == 1, references
print("ok", flush=True)
os._exit(0)  # CPython's own shutdown is not always up to what it remembers of failed allocations
"""


def test_every_allocation_may_fail(child_env):
    pytest.importorskip("_testcapi")
    assert run_child(NO_MEMORY, child_env) == "ok\n"


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="free-threaded CPython 3.13 itself crashes in it, in pure Python too",
)
@pytest.mark.parametrize("operation", ["clear", "cleanup"])
def test_every_allocation_of_the_collector_may_fail(child_env, operation):
    pytest.importorskip("_testcapi")
    assert run_child(NO_MEMORY, child_env, arguments=[operation]) == "ok\n"


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


def test_a_borrow_whose_object_has_no_repr_still_tells_what_is_wrong(aiopool):
    class Broken:
        def __repr__(self):
            raise ZeroDivisionError

    block = aiopool.Pool(Broken).borrow()
    block.__enter__()
    with pytest.raises(RuntimeError, match=r"holds <Broken instance at 0x[0-9a-f]+> already"):
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
    tally = aiopool._core.shard.Counters()
    counters.rejected -= 1
    assert counters.rejected == -1


# --- interpreters ---

INTERPRETERS = """
import os, sys, threading, aiopool

PROGRAM = '''if True:
    import asyncio, aiopool

    class Circle(aiopool.Pool):
        pass

    async def main():
        pool = aiopool.Pool(bytearray, name="inside")
        others = [aiopool.Pool(list) for _ in range(20)]
        for _ in range(300):
            with pool.borrow() as one, pool.borrow() as two:
                assert one is not two
            async with pool.borrow():
                pass
            for other in others:
                other.put(other.get())
            assert aiopool.current_processor().id == 1
        # What the end of the interpreter finds alive and in cycles.
        circle = Circle()
        circle.itself = circle
        for _ in range(3):
            circle.put([circle, circle.borrow(), aiopool.current_processor()])
        aiopool.cleanup()
        aiopool.pool.kept = circle

    aiopool.pool = Circle()
    asyncio.run(main())
    assert aiopool.implementation == "%s"
''' % aiopool.implementation

import _interpreters as interpreters

def run_one():
    try:
        id = interpreters.create()
        try:
            for _ in range(2):
                failure = interpreters.run_string(id, PROGRAM)
                if failure is not None:
                    failures.append(getattr(failure, "errdisplay", failure))
        finally:
            interpreters.destroy(id)
    except BaseException as error:
        failures.append(error)

import asyncio
failures = []
pool = aiopool.Pool()
thing = object()

async def main():
    pool.put(thing)
    run_one()
    run_one()
    threads = [threading.Thread(target=run_one) for _ in range(2)]
    for each in threads:
        each.start()
    for _ in range(20000):
        assert pool.get() is thing
        pool.put(thing)
    for each in threads:
        each.join()
    assert pool.get() is thing
    assert len(aiopool._core.processor.processors()) == 1

asyncio.run(main())
print(*failures, "ok", flush=True)
os._exit(0)  # to see our own doings, not how CPython's shutdown copes with what other interpreters imported
"""


@pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="with a GIL of their own since 3.12, which crashes by itself once two of them import asyncio",
)
def test_each_interpreter_has_pools_of_its_own(child_env):
    assert run_child(INTERPRETERS, child_env) == "ok\n"


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


# Types, module and objects die in one collection, each cut off from the others in an order that nobody chooses.
GARBAGE = """
import contextvars, gc, importlib.util, sys, weakref

def make():
    spec = importlib.util.spec_from_file_location("_native", sys.argv[1])
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)

    class Pool(native.Base):
        __slots__ = ("__weakref__", "held")
        def _get_slow(self):
            return None

    class Processor(native.Identity):
        __slots__ = ("__weakref__", "held")

    native.speed_up(Pool)
    native.bind_pins_to(contextvars.ContextVar("pinned"))
    pool, processor, shard = Pool(), Processor(), native.Shard(native.Tally())
    borrows = [pool.borrow(), pool.borrow()]
    borrows[0].__enter__()
    coming = borrows.pop().__aenter__()
    for obj in (pool, processor, borrows, coming, native):
        shard.put(obj)
    pool._store.primary = {1: shard}
    pool.held = processor.held = [pool, processor, shard, borrows, Pool, Processor]
    return [weakref.ref(each) for each in (native, Pool, Processor, native.Identity, native.Tally, pool, processor)]

gc.disable()
watched = make() + make()
gc.collect()
print([ref() for ref in watched if ref() is not None])
"""


def test_a_module_that_is_garbage_goes_with_all_it_made(aiopool, child_env):
    if aiopool.implementation == "python":
        pytest.skip("plain classes have nothing to free")
    path = aiopool._native.native.__file__
    assert run_child(GARBAGE, child_env, arguments=[path]) == "[]\n"


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
        for foreign in (other.call(aiopool.current_processor), aiopool._core.processor.NOBODY, dead):
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
                steady.rotate()
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
@pytest.mark.parametrize("how", ["cleanup", "clear", "dropped", "rotated", "shard"])
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
        elif how == "shard":
            pool._store.primary = {}
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
