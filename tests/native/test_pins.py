"""Pins, and the shards that a processor remembers: a context's binding is checked in whatever thread it is used."""

import asyncio
import contextvars
import threading

from loops import in_thread, in_threads, loop_thread
from shared import Thing


def contents(pool, id):
    """The objects in one processor's primary shard."""
    shard = pool._store.primary.get(id)
    return [] if shard is None else [*shard.private, *shard.shared]


def bound_to(aiopool, processor):
    """A context in which `processor` is bound, rightly or wrongly."""
    context = contextvars.copy_context()
    context.run(aiopool._core.processor.pinned.set, processor)
    return context


def test_a_binding_to_another_threads_processor_is_ignored(aiopool):
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
        assert in_thread(context.run, pool.get) is None, "another thread got the private object"
        in_thread(context.run, pool.put, other)
        assert contents(pool, 0) == [other]
        assert pool.get() is mine

    asyncio.run(main())


def test_a_pin_ends_with_its_thread(aiopool):
    """Threads start and end, their idents and ids are reused, and all their contexts are kept."""
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
    """No object is ever checked out twice, in whichever context an operation runs."""
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
    """A freed shard is never mistaken for one of a later pool, or for a later one of the same pool."""
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
