"""The counters, and the values derived from them."""

import pytest
from loops import in_thread, loop_thread
from shared import Thing

pytestmark = pytest.mark.anyio


async def test_a_new_pool_has_counted_nothing(aiopool):
    stats = aiopool.Pool(name="frames").stats()
    assert stats == aiopool.PoolStats("frames", (), cycles=0, dropped=0)
    assert (stats.gets, stats.hits, stats.puts, stats.idle, stats.hit_rate) == (0, 0, 0, 0, 0.0)


async def test_every_kind_of_hit_is_counted_where_it_was_got(aiopool):
    pool = aiopool.Pool(object)
    for _ in range(2):
        pool.put(object())
    pool.get(), pool.get()
    in_thread(pool.put, object())
    pool.get()
    pool.put(object())
    aiopool.cleanup()
    pool.get()
    pool.get()
    here = aiopool.current_processor().id
    mine = next(each for each in pool.stats().processors if each.id == here)
    assert (mine.private, mine.shared, mine.stolen, mine.victim, mine.misses, mine.created) == (1, 1, 1, 1, 1, 1)
    assert (mine.hits, mine.gets, mine.puts) == (4, 5, 3)


async def test_the_pool_adds_up_its_processors(aiopool):
    pool = aiopool.Pool(object, max_idle=2)
    with loop_thread() as other:
        for loop_call in (other.call, lambda function, *args: function(*args), in_thread):
            for _ in range(3):
                loop_call(pool.put, object())
            loop_call(pool.get)
    stats = pool.stats()
    assert len(stats.processors) == 3
    for name in (
        "private",
        "shared",
        "stolen",
        "victim",
        "misses",
        "created",
        "puts",
        "rejected",
        "over_max_idle",
        "idle",
        "hits",
        "gets",
    ):
        assert getattr(stats, name) == sum(getattr(each, name) for each in stats.processors)
    assert (stats.puts, stats.rejected, stats.hits, stats.idle, stats.dropped) == (9, 3, 3, 3, 3)
    assert stats.over_max_idle == 3


async def test_hit_rate(aiopool):
    pool = aiopool.Pool(object)
    for _ in range(4):
        pool.put(pool.get())
    assert pool.stats().hit_rate == 0.75


async def test_dropped_counts_objects_that_were_put_and_are_gone(aiopool):
    pool = aiopool.Pool(object)
    pool.fill(5)
    aiopool.cleanup()
    pool.put(object())
    aiopool.cleanup()
    assert (pool.stats().dropped, pool.stats().idle) == (5, 1)
    with pytest.raises(KeyError), pool.borrow():
        raise KeyError
    assert (pool.stats().dropped, pool.stats().rejected) == (6, 1)
    pool.clear()
    assert pool.stats().dropped == 6


@pytest.mark.parametrize("kind", ["Pool", "AsyncPool"])
@pytest.mark.parametrize("loop_bound", [False, True])
async def test_stats_say_why_objects_were_rejected(aiopool, kind, loop_bound):
    usable = True
    pool = getattr(aiopool, kind)(Thing, reset=lambda obj: usable, max_idle=2, loop_bound=loop_bound)
    things = [await waited(pool.get()) for _ in range(6)]
    for thing in things[:5]:
        await waited(pool.put(thing))
    usable = False
    await waited(pool.put(things[5]))
    stats = pool.stats()
    assert (stats.max_idle, stats.idle, stats.rejected, stats.over_max_idle) == (2, 2, 4, 3)


async def waited(result):
    return await result if hasattr(result, "__await__") else result


async def test_stats_have_the_bound_before_and_after_the_first_use(aiopool):
    pool, unbounded = aiopool.Pool(Thing, max_idle=3), aiopool.Pool(Thing)
    assert (pool.stats().max_idle, unbounded.stats().max_idle) == (3, None)
    pool.put(Thing())
    assert pool.stats().max_idle == 3
