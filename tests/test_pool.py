"""`Pool` on one loop: the order of get, `new`, `reset`, `max_idle`, `borrow`, `fill`, `clear`."""

import asyncio
import copy
import gc
import pickle
import weakref

import anyio
import pytest
from loops import all_freed, loop_thread
from shared import Thing

pytestmark = pytest.mark.anyio


async def test_get_gives_private_then_shared_then_new(aiopool):
    made = []

    def new():
        made.append(Thing())
        return made[-1]

    pool = aiopool.Pool(new)
    a, b = Thing(), Thing()
    pool.put(a)
    pool.put(b)
    assert pool.get() is a
    assert pool.get() is b
    assert made == []
    assert pool.get() is made[0]
    assert len(made) == 1


async def test_get_takes_the_newest_shared(aiopool):
    pool = aiopool.Pool()
    private, older, newer = Thing(), Thing(), Thing()
    for obj in private, older, newer:
        pool.put(obj)
    assert [pool.get() for _ in range(3)] == [private, newer, older]


async def test_without_new_a_miss_is_none(aiopool):
    pool = aiopool.Pool()
    assert pool.get() is None
    pool.put(thing := Thing())
    assert pool.get() is thing
    assert pool.get() is None


async def test_put_none_changes_nothing(aiopool):
    pool = aiopool.Pool()
    pool.put(None)
    assert pool.get() is None
    assert (pool.stats().puts, pool.stats().idle) == (0, 0)


async def test_a_falsy_object_is_not_a_miss(aiopool):
    pool = aiopool.Pool()
    for empty in [], 0, "", False:
        pool.put(empty)
        assert pool.get() is empty


async def test_an_object_whose_comparison_raises_can_be_pooled(aiopool):
    class Incomparable:
        __hash__ = None

        def __eq__(self, other):
            raise RuntimeError("compared")

    pool = aiopool.Pool()
    things = [Incomparable() for _ in range(3)]
    for thing in things:
        pool.put(thing)
    assert {id(pool.get()) for _ in things} == {id(thing) for thing in things}


# --- reset ---


async def test_reset_runs_before_other_code_can_get_the_object(aiopool):
    seen = []

    def reset(obj):
        seen.append((bytes(obj), pool.stats().idle))
        obj.clear()

    pool = aiopool.Pool(bytearray, reset=reset)
    pool.put(bytearray(b"secret"))
    assert seen == [(b"secret", 0)]
    assert pool.get() == b""


async def test_reset_that_returns_false_rejects_the_object(aiopool):
    pool = aiopool.Pool(bytearray, reset=lambda obj: len(obj) < 3)
    pool.put(bytearray(b"too long"))
    assert (pool.stats().idle, pool.stats().dropped) == (0, 1)
    pool.put(bytearray(b"ok"))
    assert pool.stats().idle == 1


async def test_reset_that_returns_a_falsy_value_other_than_false_keeps_the_object(aiopool):
    pool = aiopool.Pool(bytearray, reset=lambda obj: None)
    pool.put(bytearray())
    assert pool.stats().idle == 1


async def test_the_exception_of_reset_reaches_the_caller_and_nothing_is_kept(aiopool):
    def reset(obj):
        raise ValueError("broken state")

    pool = aiopool.Pool(Thing, reset=reset)
    with pytest.raises(ValueError, match="broken state"):
        pool.put(Thing())
    assert (pool.stats().idle, pool.stats().puts, pool.stats().dropped) == (0, 1, 1)


async def test_reset_may_use_the_pool(aiopool):
    other = Thing()

    def reset(obj):
        if obj is not other:
            pool.put(other)

    pool = aiopool.Pool(reset=reset)
    thing = Thing()
    pool.put(thing)
    assert {pool.get(), pool.get()} == {thing, other}
    assert pool.get() is None


# --- max_idle ---


@pytest.mark.parametrize("bound", [0, 1, 2, 5])
async def test_max_idle_bounds_the_idle_objects_of_a_processor(aiopool, bound):
    pool = aiopool.Pool(Thing, max_idle=bound)
    for _ in range(8):
        pool.put(Thing())
    assert pool.stats().idle == bound
    assert pool.stats().dropped == 8 - bound


async def test_max_idle_counts_the_victim_too(aiopool):
    pool = aiopool.Pool(max_idle=3)
    for _ in range(2):
        pool.put(Thing())
    aiopool.cleanup()
    for _ in range(2):
        pool.put(Thing())
    assert pool.stats().idle == 3


async def test_max_idle_is_for_each_processor(aiopool):
    pool = aiopool.Pool(max_idle=1)
    pool.put(Thing())
    with loop_thread() as other:
        other.call(pool.put, Thing())
        assert pool.stats().idle == 2


# --- double put ---


async def test_putting_the_private_object_again_is_an_error(aiopool):
    pool = aiopool.Pool(name="frames")
    thing = Thing()
    pool.put(thing)
    with pytest.raises(ValueError, match=r"Thing object.*frames"):
        pool.put(thing)
    assert pool.stats().puts == 1
    assert pool.get() is thing
    assert pool.get() is None


async def test_a_double_put_is_found_before_reset_touches_the_idle_object(aiopool):
    resets = []
    pool = aiopool.Pool(reset=resets.append)
    thing = Thing()
    pool.put(thing)
    with pytest.raises(ValueError, match="put each object once"):
        pool.put(thing)
    assert resets == [thing]


# --- borrow ---


async def test_borrow_puts_back(aiopool):
    pool = aiopool.Pool(Thing)
    with pool.borrow() as first:
        assert pool.stats().idle == 0
    with pool.borrow() as second:
        assert second is first
    async with pool.borrow() as third:
        assert third is first


async def test_borrow_drops_the_object_of_a_failed_block(aiopool):
    pool = aiopool.Pool(Thing)
    with pytest.raises(ZeroDivisionError), pool.borrow() as first:
        raise ZeroDivisionError
    assert (pool.stats().idle, pool.stats().dropped) == (0, 1)
    with pool.borrow() as second:
        assert second is not first


async def test_borrow_of_none(aiopool):
    pool = aiopool.Pool()
    with pool.borrow() as thing:
        assert thing is None
    with pytest.raises(ZeroDivisionError), pool.borrow():
        raise ZeroDivisionError
    assert (pool.stats().puts, pool.stats().dropped) == (0, 0)


async def test_a_borrow_cannot_be_entered_while_it_holds(aiopool):
    pool = aiopool.Pool(Thing)
    borrow = pool.borrow()
    with borrow, pytest.raises(RuntimeError, match=r"Thing object.* call borrow\(\) for each block"), borrow:
        pass
    assert pool.stats().idle == 1
    with borrow:
        assert pool.stats().idle == 0


async def test_borrow_puts_back_on_the_loop_where_the_block_ends(aiopool):
    pool = aiopool.Pool(Thing)
    borrow = pool.borrow()
    thing = borrow.__enter__()
    with loop_thread() as other:
        other.call(borrow.__exit__, None, None, None)
        assert other.call(pool.get) is thing


# --- fill and clear ---


async def test_fill_creates_objects_in_advance(aiopool):
    made = []
    pool = aiopool.Pool(lambda: made.append(Thing()) or made[-1])
    pool.fill(5)
    assert (len(made), pool.stats().created, pool.stats().idle) == (5, 5, 5)
    assert {pool.get() for _ in range(5)} == set(made)
    assert len(made) == 5


async def test_fill_keeps_objects_created_before_new_raised(aiopool):
    stock = [Thing(), Thing()]
    pool = aiopool.Pool(stock.pop)
    with pytest.raises(IndexError, match="pop from empty list"):
        pool.fill(3)
    assert (pool.stats().idle, pool.stats().created) == (2, 2)


async def test_fill_and_idle_objects_together_stop_at_max_idle(aiopool):
    pool = aiopool.Pool(Thing, max_idle=3)
    pool.put(Thing())
    pool.fill(3)
    assert pool.stats().idle == 3


async def test_clear_drops_everything_and_says_how_many(aiopool):
    pool = aiopool.Pool()
    things = [Thing() for _ in range(6)]
    for thing in things[:3]:
        pool.put(thing)
    aiopool.cleanup()
    for thing in things[3:]:
        pool.put(thing)
    del thing
    refs = [weakref.ref(thing) for thing in things]
    things.clear()
    assert pool.clear() == 6
    await all_freed(aiopool)
    assert [ref() for ref in refs] == [None] * 6
    assert (pool.get(), pool.stats().dropped, pool.clear()) == (None, 6, 0)


async def test_new_that_raises_leaves_the_pool_unchanged(aiopool):
    def new():
        raise OSError("no more sockets")

    pool = aiopool.Pool(new)
    with pytest.raises(OSError, match="no more sockets"):
        pool.get()
    with pytest.raises(OSError, match="no more sockets"), pool.borrow():
        pass
    assert (pool.stats().misses, pool.stats().created, pool.stats().dropped) == (2, 0, 0)
    pool.put(thing := Thing())
    assert pool.get() is thing


# --- cleanup cycles, as the pool sees them ---


@pytest.mark.parametrize("drain", [False, True], ids=["undrained", "drained"])
@pytest.mark.parametrize("cycle", ["cleanup", "collect"])
async def test_two_cycles_finalize_all_that_was_put(aiopool, cycle, drain):
    finalized = []

    class Counted:
        def __del__(self):
            finalized.append(1)

    pool = aiopool.Pool()
    run_cycle = aiopool.cleanup if cycle == "cleanup" else gc.collect
    for _ in range(100):
        pool.put(Counted())
    if drain:
        held = [pool.get() for _ in range(100)]
        assert None not in held
        while held:
            pool.put(held.pop())
    run_cycle()
    await all_freed(aiopool)
    assert len(finalized) == 0
    run_cycle()
    await all_freed(aiopool)
    assert len(finalized) == 100
    assert pool.stats().dropped == 100


async def test_the_victim_is_still_found(aiopool):
    pool = aiopool.Pool()
    private, shared = Thing(), Thing()
    pool.put(private)
    pool.put(shared)
    aiopool.cleanup()
    assert (pool.get(), pool.get(), pool.get()) == (private, shared, None)
    assert pool.stats().victim == 2


async def test_an_object_from_the_victim_returns_to_primary(aiopool):
    pool = aiopool.Pool()
    pool.put(thing := Thing())
    for _ in range(5):
        aiopool.cleanup()
        assert pool.get() is thing
        pool.put(thing)
    assert pool.stats().victim == 5


# --- life of a pool ---


async def test_an_unreferenced_pool_is_freed_with_its_objects(aiopool):
    pool = aiopool.Pool(name="short-lived")
    thing = Thing()
    thing_ref, pool_ref = weakref.ref(thing), weakref.ref(pool)
    pool.put(thing)
    assert pool in aiopool.pools()
    del thing, pool
    gc.collect()  # free-threaded builds count the references to a pool only then
    assert (thing_ref(), pool_ref()) == (None, None)
    assert "short-lived" not in [each.stats().name for each in aiopool.pools()]


async def test_a_pool_in_a_cycle_with_its_new_is_collected(aiopool):
    class Service:
        def __init__(self):
            self.pool = aiopool.Pool(self.make)

        def make(self):
            return Thing()

    service = Service()
    service.pool.put(Thing())
    ref = weakref.ref(service.pool)
    del service
    gc.collect()
    assert ref() is None


async def test_pools_lists_the_live_ones_oldest_first(aiopool):
    first, second = aiopool.Pool(name="first"), aiopool.Pool(name="second")
    mine = [pool for pool in aiopool.pools() if pool in (first, second)]
    assert mine == [first, second]


async def test_repr_shows_the_name(aiopool):
    assert repr(aiopool.Pool(name="frames")) == "<aiopool.Pool 'frames'>"
    assert hex(id(pool := aiopool.Pool())) in repr(pool)


# --- bad input ---


@pytest.mark.parametrize("what", ["new", "reset"])
@pytest.mark.parametrize("value", [3, "make", b""])
def test_arguments_that_must_be_callable(aiopool, what, value):
    with pytest.raises(TypeError, match=rf"{what} must be callable or None, not {value!r}"):
        aiopool.Pool(**{what: value})


@pytest.mark.parametrize("value", [1.5, "3", object])
def test_bounds_must_be_integers(aiopool, value):
    with pytest.raises(TypeError, match=r"max_idle must be an integer, not "):
        aiopool.Pool(max_idle=value)
    with pytest.raises(TypeError, match=r"n must be an integer, not "):
        aiopool.Pool(Thing).fill(value)


def test_bounds_must_not_be_negative(aiopool):
    with pytest.raises(ValueError, match="max_idle must not be negative, but is -1"):
        aiopool.Pool(max_idle=-1)
    with pytest.raises(ValueError, match="n must not be negative, but is -2"):
        aiopool.Pool(Thing).fill(-2)


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1.5, ValueError), (float("nan"), ValueError), ("60", TypeError), (True, TypeError)],
)
def test_idle_timeout_must_be_a_positive_number(aiopool, value, error):
    with pytest.raises(error, match=rf"idle_timeout must be .*{value}"):
        aiopool.Pool(idle_timeout=value)


def test_a_pool_whose_creation_failed_is_not_registered(aiopool):
    before = len(aiopool.pools())
    with pytest.raises(TypeError):
        aiopool.Pool(max_idle="many")
    assert len(aiopool.pools()) == before


def test_fill_needs_new(aiopool):
    with pytest.raises(TypeError, match=r"needs a `new` factory; .*'frames'. has none"):
        aiopool.Pool(name="frames").fill(1)


def test_fill_beyond_max_idle_says_so(aiopool):
    pool = aiopool.Pool(Thing, max_idle=3)
    with pytest.raises(ValueError, match=r"fill\(4\).*max_idle is 3"):
        pool.fill(4)
    assert pool.stats().created == 0


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_pool_cannot_be_copied_or_pickled(aiopool, how):
    pool = aiopool.Pool(name="frames")
    with pytest.raises(TypeError, match=r"cannot copy or pickle .*'frames'.*create one in each process"):
        how(pool)


# --- cancellation ---


async def test_a_cancelled_block_drops_its_object(aiopool):
    pool = aiopool.Pool(Thing)
    with anyio.move_on_after(0):
        async with pool.borrow():
            await anyio.sleep_forever()
    assert (pool.stats().idle, pool.stats().dropped) == (0, 1)


def test_a_cancelled_asyncio_task_drops_its_object(aiopool):
    pool = aiopool.Pool(Thing)

    async def request(entered):
        with pool.borrow():
            entered.set()
            await asyncio.get_running_loop().create_future()

    async def main():
        entered = asyncio.Event()
        task = asyncio.create_task(request(entered))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (pool.stats().idle, pool.stats().dropped) == (0, 1)


async def test_objects_dropped_by_clear_are_not_found_again(aiopool):
    pool = aiopool.Pool()
    for _ in range(3):
        pool.put(bytearray())
    assert pool.clear() == 3
    assert pool.get() is None
