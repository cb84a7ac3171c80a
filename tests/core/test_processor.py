"""Processors from their creation to their release, and contexts that travel between threads."""

import asyncio
import contextvars
import gc
import sys
import threading
import types
import weakref

import anyio.from_thread
import anyio.to_thread
import pytest
from loops import in_thread, in_threads, loop_thread

pytestmark = pytest.mark.anyio


async def here(aiopool):
    return aiopool.current_processor()


async def test_a_loop_thread_is_a_processor(aiopool):
    processor = aiopool.current_processor()
    assert processor.thread_id == threading.get_ident()
    assert processor.id >= 1
    assert aiopool.current_processor() is processor
    assert str(processor.id) in repr(processor)


def test_off_loop_there_is_no_processor(aiopool):
    assert aiopool.current_processor() is None
    assert in_thread(aiopool.current_processor) is None


def test_a_thousand_loops_on_one_thread_are_one_processor(aiopool):
    seen = {asyncio.run(here(aiopool)) for _ in range(1000)}
    assert len(seen) == 1


def test_two_loops_at_once_are_two_processors_with_the_smallest_ids(aiopool):
    def both():
        with loop_thread() as one, loop_thread() as two:
            return [one.call(aiopool.current_processor).id, two.call(aiopool.current_processor).id]

    taken = {processor.id for processor in aiopool._core.processor.processors()}
    free = [id for id in range(1, len(taken) + 3) if id not in taken]
    assert both() == free[:2]
    assert both() == free[:2]


def test_threads_one_after_another_use_one_id_and_lose_nothing(aiopool):
    pool = aiopool.Pool(object)
    before = len(aiopool._core.processor.processors())

    async def use():
        with pool.borrow() as obj:
            return aiopool.current_processor().id, obj

    seen = {in_thread(asyncio.run, use()) for _ in range(10_000)}
    assert len(seen) == 1
    assert pool.stats().created == 1
    assert len(aiopool._core.processor.processors()) == before


def test_a_new_thread_finds_the_private_object_of_an_ended_one(aiopool):
    pool = aiopool.Pool()
    thing = object()
    with loop_thread() as first:
        id = first.call(aiopool.current_processor).id
        first.call(pool.put, thing)
    with loop_thread() as second:
        assert second.call(aiopool.current_processor).id == id
        assert second.call(pool.get) is thing
        assert pool.stats().private == 1


def test_an_ended_thread_leaves_its_shared_list_to_stealers(aiopool):
    pool = aiopool.Pool()
    things = [object(), object()]
    with loop_thread() as first, loop_thread() as second:
        first.call(pool.get)
        for thing in things:
            second.call(pool.put, thing)
        second.stop()
        second.stop = lambda: None
        assert first.call(pool.get) is things[1]


def test_a_context_that_outlives_its_thread_keeps_no_pool_of_a_borrow_alive(aiopool):
    """With the C extension and without a GIL, a processor keeps its last borrow for the next one."""

    def use():
        pool = aiopool.Pool(list)
        with pool.borrow():
            return contextvars.copy_context(), weakref.ref(pool)

    with loop_thread() as thread:
        context, pool = thread.call(use)
    gc.collect()
    assert context[aiopool._core.processor.pinned] is not aiopool._core.processor.UNBOUND
    assert pool() is None


# --- contexts that travel ---


@pytest.fixture
def trusting(reference, monkeypatch):
    """The negative control: a pool that trusts its ContextVar in any thread."""
    for module in (reference._pool, reference._core.processor):
        monkeypatch.setattr(module, "get_ident", lambda: 1)
    return reference


@pytest.fixture
def checking(aiopool):
    """The real version, which checks the binding."""
    return aiopool


def carried_to_a_worker_thread(package, pool):
    async def main():
        pool.put("private of loop A")
        return await asyncio.to_thread(pool.get)

    return asyncio.run(main())


def carried_by_a_context_into_a_new_thread(package, pool):
    async def main():
        pool.put("private of loop A")
        return in_thread(contextvars.copy_context().run, pool.get)

    return asyncio.run(main())


def carried_to_another_loop_by_a_coroutine(package, pool):
    async def get():
        return pool.get()

    async def main():
        pool.put("private of loop A")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(get(), other.loop))

    with loop_thread() as other:
        return asyncio.run(main())


def carried_to_another_loop_by_a_callback(package, pool):
    async def main():
        pool.put("private of loop A")
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        other.loop.call_soon_threadsafe(lambda: loop.call_soon_threadsafe(answer.set_result, pool.get()))
        return await answer

    with loop_thread() as other:
        return asyncio.run(main())


def carried_to_another_loop_by_a_context(package, pool):
    async def main():
        pool.put("private of loop A")
        return other.call(contextvars.copy_context().run, pool.get)

    with loop_thread() as other:
        return asyncio.run(main())


CARRIED = [
    carried_to_a_worker_thread,
    carried_by_a_context_into_a_new_thread,
    carried_to_another_loop_by_a_coroutine,
    carried_to_another_loop_by_a_callback,
    carried_to_another_loop_by_a_context,
]


@pytest.mark.parametrize("carry", CARRIED)
def test_a_context_that_travels_does_not_reach_the_private_slot(checking, carry):
    pool = checking.Pool()
    assert carry(checking, pool) is None
    assert pool.stats().idle == 1


class Blocks:
    """A buffer pool with the methods of a `Pool`: `get` finds the block of a `put`, by its first byte."""

    def __init__(self, pool):
        self._pool = pool

    def put(self, obj):
        self._pool.acquire(100)[0] = 1

    def get(self):
        return self._pool.acquire(100)[0] or None


@pytest.mark.parametrize("carry", CARRIED)
def test_a_context_that_travels_does_not_reach_a_private_block(reusing, carry):
    pool = reusing.BufferPool()
    assert carry(reusing, Blocks(pool)) is None
    assert pool.stats().created == 2


def test_a_double_put_is_found_in_a_context_that_travelled(aiopool):
    """It is looked for where the code runs, and not where the context comes from."""
    pool, thing = aiopool.Pool(), object()
    with loop_thread() as one, loop_thread() as other:
        context = one.call(lambda: (pool.put(object()), contextvars.copy_context())[1])
        other.call(pool.put, thing)
        with pytest.raises(ValueError, match="put each object once"):
            other.call(context.run, pool.put, thing)
        assert pool.stats().idle == 2


@pytest.mark.parametrize("carry", CARRIED)
def test_trusting_the_context_lets_two_threads_use_one_private_slot(trusting, carry):
    # In a new thread, whose processor is created while every thread seems to have the same ident.
    assert in_thread(carry, trusting, trusting.Pool()) == "private of loop A"


def test_a_context_that_returns_to_its_thread_is_valid_again(aiopool):
    """A context that was bound on another thread meanwhile is bound again, and then valid."""
    pool = aiopool.Pool()
    context = contextvars.Context()

    async def use(obj):
        pool.put(obj)
        return aiopool.current_processor().id

    with loop_thread() as one, loop_thread() as two:
        ids = [loop.call(context.run, lambda: aiopool.current_processor().id) for loop in (one, two, one)]
        assert ids[0] == ids[2] != ids[1]


def test_a_context_that_outlives_its_loop_is_bound_again_on_the_next(aiopool):
    context = contextvars.copy_context()
    pool = aiopool.Pool()

    async def use():
        pool.put(object())
        pool.get()
        return aiopool.current_processor(), asyncio.get_running_loop()

    for _ in range(2):
        with asyncio.Runner() as runner:
            processor, loop = runner.run(use(), context=context)
            assert processor.loop.is_loop(loop)
        assert processor.thread_id is None


async def test_a_parked_processor_is_valid_again_from_the_next_pin_on(aiopool):
    processor = aiopool.current_processor()
    processor.park()
    assert aiopool.current_processor() is processor
    assert processor.thread_id == threading.get_ident()


def test_while_another_thread_imports_trio_no_run_of_it_is_found(aiopool, monkeypatch):
    """The module may not have its names yet."""
    monkeypatch.setitem(sys.modules, "trio.lowlevel", types.ModuleType("trio.lowlevel"))
    assert aiopool.current_processor() is None


# --- thread idents are reused ---


def thread_with_the_ident(ident, function):
    """Call `function` in a new thread with this ident, which is soon reused, and return the result."""

    def attempt():
        return (True, function()) if threading.get_ident() == ident else (False, None)

    for _ in range(100):
        hit, result = in_thread(attempt)
        if hit:
            return result
    pytest.skip("this platform does not use thread idents again")
    return None


def get_as_a_thread_long_ended(package):
    """Whether two threads use one private slot: a live one that put there, and one with the context of an ended one."""
    pool = package.Pool()

    async def remember():
        package.current_processor()
        return contextvars.copy_context(), threading.get_ident(), package.current_processor().id

    context, ident, id = in_thread(asyncio.run, remember())
    # The next loop thread has the id of the ended one; keep threads alive until an ident differs from that one's.
    with loop_thread() as spare, loop_thread() as another:
        loop = next(each for each in (spare, another) if each.thread.ident != ident)
        loop.call(package.current_processor)
        assert loop.call(package.current_processor).id == id
        loop.call(pool.put, "private of the living")
        for each in (spare, another):
            if each is not loop:
                each.stop()
                each.stop = lambda: None
        return thread_with_the_ident(ident, lambda: context.run(pool.get))


def test_a_reused_thread_ident_has_no_processor(aiopool):
    assert get_as_a_thread_long_ended(aiopool) is None


def test_without_invalidation_a_reused_ident_is_mistaken_for_the_ended_thread(reference, monkeypatch):
    def release(self):
        if self._owners.get(self.id) is self:
            del self._owners[self.id]

    monkeypatch.setattr(reference._core.processor.Processor, "release", release)
    # If a timer was set on its loop, the end of the loop also invalidates the binding.
    monkeypatch.setattr(reference._core.processor.Processor, "park", lambda self: None)
    assert get_as_a_thread_long_ended(reference) == "private of the living"


def test_without_release_every_thread_leaves_a_dead_processor(reference, monkeypatch):
    monkeypatch.setattr(reference._core.processor.Processor, "release", lambda self: None)
    before = len(reference._core.processor.processors())
    for _ in range(10):
        in_thread(asyncio.run, here(reference))
    dead = reference._core.processor.processors()[before:]
    assert len(dead) == 10
    monkeypatch.undo()
    for processor in dead:
        processor.release()


def test_a_pin_during_the_creation_of_a_processor_leaves_one_processor(reference, monkeypatch):
    """A finalizer may pin while this thread's processor is being claimed."""
    claim = reference._core.processor._claim

    def claim_interrupted():
        processor = claim()
        monkeypatch.setattr(reference._core.processor, "_claim", claim)
        seen.append(contextvars.Context().run(reference.current_processor))
        return processor

    def born():
        async def main():
            seen.append(reference.current_processor())
            seen.append(reference.current_processor())

        monkeypatch.setattr(reference._core.processor, "_claim", claim_interrupted)
        asyncio.run(main())

    seen = []
    before = len(reference._core.processor.processors())
    in_thread(born)
    assert len(set(seen)) == 1
    assert len(seen) == 3
    assert len(reference._core.processor.processors()) == before


# --- off-loop ---


def test_off_loop_threads_share_and_keep_nothing(aiopool):
    pool = aiopool.Pool()
    things = [object() for _ in range(10)]
    for thing in things:
        in_thread(pool.put, thing)
    assert {in_thread(pool.get) for _ in things} == set(things)
    assert [each.id for each in pool.stats().processors] == [0]


async def test_a_loop_finds_objects_put_off_loop(aiopool):
    pool = aiopool.Pool()
    thing = object()
    in_thread(pool.put, thing)
    assert pool.get() is thing
    assert pool.stats().stolen == 1


async def test_off_loop_code_finds_shared_objects_of_a_loop(aiopool):
    pool = aiopool.Pool()
    private, shared = object(), object()
    pool.put(private)
    pool.put(shared)
    assert in_thread(pool.get) is shared
    assert in_thread(pool.get) is None


async def test_an_object_goes_to_a_worker_thread_and_comes_back(aiopool):
    pool = aiopool.Pool(object)
    here, lent = aiopool.current_processor(), pool.get()

    def on_the_loop(obj):
        pool.put(obj)
        return aiopool.current_processor()

    async def task_on_the_loop():
        return pool.get(), aiopool.current_processor()

    def in_the_thread(obj):
        assert aiopool.current_processor() is None
        # Objects put here are put off-loop; calls that the thread posts to the loop run as the loop's processor.
        pool.put(pool.get())
        assert anyio.from_thread.run_sync(on_the_loop, obj) is here
        again, processor = anyio.from_thread.run(task_on_the_loop)
        assert processor is here
        return again

    assert await anyio.to_thread.run_sync(in_the_thread, lent) is lent
    off_loop, loop = pool.stats().processors
    assert (off_loop.id, off_loop.gets, off_loop.puts, off_loop.idle) == (0, 1, 1, 1)
    assert (loop.id, loop.gets, loop.private, loop.puts) == (here.id, 2, 1, 1)


def test_the_thread_of_a_portal_has_its_own_processor(aiopool, anyio_backend):
    backend, options = anyio_backend
    with anyio.from_thread.start_blocking_portal(backend, options) as portal:
        ident = portal.call(threading.get_ident)
        assert portal.call(aiopool.current_processor).thread_id == ident != threading.get_ident()
        assert aiopool.current_processor() is None


def test_off_loop_threads_at_the_same_time_lose_nothing(aiopool):
    pool = aiopool.Pool()
    things = {object() for _ in range(100)}
    for thing in things:
        pool.put(thing)

    def churn():
        for _ in range(3000):
            obj = pool.get()
            if obj is not None:
                pool.put(obj)

    in_threads([churn] * 8)
    found = []
    while (obj := pool.get()) is not None:
        found.append(obj)
    assert len(found) == 100
    assert set(found) == things


def test_after_a_loop_ended_its_thread_is_off_loop(aiopool):
    pool = aiopool.Pool()

    async def use():
        pool.put(object())

    def one_after_the_other():
        asyncio.run(use())
        pool.get()
        pool.put(object())

    in_thread(one_after_the_other)
    off_loop, on_loop = pool.stats().processors
    assert (off_loop.id, off_loop.puts, on_loop.puts) == (0, 1, 1)


def test_cleanup_on_a_loop_leaves_no_binding_in_the_context(aiopool):
    """A garbage collection may run in the thread's own context, which outlives its loops."""
    pool = aiopool.Pool()
    context = contextvars.Context()

    async def collect():
        assert pool.clear() == 3
        aiopool.cleanup()

    def main():
        for _ in range(3):
            pool.put(object())
        with asyncio.Runner() as runner:
            runner.run(collect(), context=context)
        assert aiopool._core.processor.pinned not in context

    in_thread(main)
