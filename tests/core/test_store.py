"""The store: when cycles and clears overlap, each shard is retired exactly once."""

import asyncio
import time
from collections import Counter, deque
from math import inf

import pytest
from interrupts import at_every_bytecode, core_files
from loops import in_threads, loop_thread
from shared import Thing

STORE = core_files("store")


def retired_in_every_gap(aiopool, operation, intruder):
    """Interrupt `operation` in every gap. Returns, for each failure, how often each shard was retired."""
    failures = []

    def scenario():
        pool = aiopool.Pool()
        store = pool._store
        pool.put(Thing())
        aiopool.cleanup()
        pool.put(Thing())
        shards = [shard for _, shard in store.shards()]

        def check(first, second):
            newest = max(store._contents.generations)
            assert store.primary is store._contents.generations[newest]
            retired = [*first, *(second or ()), *store.rotate(), *store.rotate()]
            times = Counter(map(id, retired))
            if any(times[id(shard)] != 1 for shard in shards):
                failures.append(sorted(times.values()))
            pool.put(thing := Thing())
            assert pool.get() is thing
            assert store.fast_get is store.fast_put is store.primary

        return getattr(store, operation), getattr(store, intruder), check

    assert at_every_bytecode(scenario, files=(*STORE, "test_store")) > 20
    return failures


@pytest.mark.parametrize("intruder", ["clear", "rotate"])
@pytest.mark.parametrize("operation", ["clear", "rotate"])
def test_a_clear_or_cycle_interrupted_by_another_retires_each_shard_once(reference, operation, intruder):
    assert retired_in_every_gap(reference, operation, intruder) == []


def test_reading_and_then_removing_generations_retires_shards_twice(reference, monkeypatch):
    def retire(self, before):
        retired = []
        for number in sorted(self.generations):
            if number < before:
                retired += self.generations.get(number, {}).values()
                self.generations.pop(number, None)
        return retired

    monkeypatch.setattr(reference._core.store.Contents, "retire", retire)
    assert retired_in_every_gap(reference, "clear", "clear") != []


def test_replacing_generations_after_reading_them_retires_shards_twice(reference, monkeypatch):
    def clear(self):
        contents = self._contents
        taken = [shard for shards in contents.generations.copy().values() for shard in shards.copy().values()]
        number = contents.begin()
        contents.generations = {number: {}}
        self._publish()
        return taken

    monkeypatch.setattr(reference._core.store.Store, "clear", clear)
    assert retired_in_every_gap(reference, "clear", "clear") != []


def test_clears_and_cycles_of_many_threads_retire_each_shard_once(aiopool):
    pool = aiopool.Pool()
    store = pool._store
    retired = []

    def work(operation):
        for _ in range(500):
            pool.put(Thing())
            retired.append(operation())

    in_threads([lambda: work(store.clear), lambda: work(store.rotate)] * 2)
    retired += [store.clear()]
    shards = [shard for each in retired for shard in each]
    assert len(shards) == len(set(map(id, shards)))
    assert store.shards() == []


@pytest.mark.parametrize("loop_bound", [False, True])
def test_the_idle_time_begins_with_the_first_put(aiopool, loop_bound):
    """And not when the pool was created; and the next put, on another loop, does not begin it anew."""
    pool = aiopool.Pool(idle_timeout=60, loop_bound=loop_bound)
    with loop_thread() as one, loop_thread() as other:
        assert pool._store.idle_due() == inf
        before = time.monotonic()
        one.call(pool.put, Thing())
        due = pool._store.idle_due()
        assert due >= before + 60
        other.call(pool.put, Thing())
        assert len(pool._store.shards()) == 2
        assert pool._store.idle_due() == due


@pytest.mark.parametrize("loop_bound", [False, True])
def test_the_next_use_on_a_loop_sets_a_timer_that_an_exception_prevented(aiopool, loop_bound):
    """A signal handler raised while the loop's timer was set. The processor is parked, so the next use is slow."""

    async def main():
        pool, processor = aiopool.Pool(loop_bound=loop_bound), aiopool.current_processor()
        pool.put(Thing())
        processor.park()
        processor.wakes_at = inf
        pool.get()
        assert processor.wakes_at <= pool._store.idle_due()

    asyncio.run(main())


def test_after_a_clear_nothing_is_found_neither_in_primary_nor_in_the_victim(aiopool):
    pool = aiopool.Pool()
    pool.put(Thing())
    aiopool.cleanup()
    pool.put(Thing())
    retired = pool._store.clear()
    assert pool.get() is None
    assert sum(map(len, retired)) == 2


def test_a_store_that_was_never_used_retires_nothing(aiopool):
    """A buffer pool has many of them, and each cleanup cycle would have to free what each one retires."""
    store = aiopool.Pool()._store
    assert (store.rotate(), store.clear(), store.forget_empty(), store.cycles()) == ([], [], [], 1)


@pytest.fixture
def shard(reference):
    return reference._core.shard.Shard(reference._core.shard.Counters())


class Emptied(deque):
    """A list from which other code takes the last object between the store's check and its pop."""

    def pop(self):
        self.clear()
        return super().pop()

    def popleft(self):
        self.clear()
        return super().popleft()


@pytest.mark.parametrize("take", ["take_private", "take_newest", "take_oldest", "free_newest"])
def test_an_object_that_another_took_since_the_look_is_a_miss(shard, take):
    shard.private, shard.shared = Emptied([Thing()]), Emptied([Thing()])
    assert not getattr(shard, take)()
    assert not shard.lock.locked()


def test_a_private_object_that_another_took_before_it_is_moved_is_not_missed(shard):
    """The next put moves what a busy lock left in the private list, unless a finalizer takes it first."""
    shard.private = Emptied([Thing(), Thing()])
    shard.put(thing := Thing())
    assert list(shard.shared) == [thing]
    assert not shard.lock.locked()


def test_a_steal_does_not_wait_for_a_busy_shared_list(shard):
    shard.shared.append(thing := Thing())
    with shard.lock:
        assert shard.take_oldest() is None
    assert shard.take_oldest() is thing


def test_the_owner_needs_no_lock_to_take(shard):
    shard.shared.append(thing := Thing())
    with shard.lock:
        assert shard.take_newest() is thing
    assert shard.take_newest() is None


def test_without_a_private_slot_a_put_needs_no_lock(reference):
    """Every object that is put off-loop, or to an AsyncPool, can be stolen."""
    shard = reference._core.shard.Shard(reference._core.shard.Counters(), 0)
    with shard.lock:
        shard.put(thing := Thing())
    assert not shard.private
    assert shard.take_oldest() is thing
