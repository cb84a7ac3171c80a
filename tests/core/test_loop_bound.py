"""`loop_bound=True`: an object is only handed out on its own loop.

Each test of a danger shows it first, with a pool that is not loop-bound. test_bound_loops.py has the tests of the end
of a loop.
"""

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections import Counter
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
import trio
from children import run_program
from interrupts import PACKAGE, at_every_bytecode
from loops import PATIENCE, in_thread, in_threads, loop_thread, on_a_loop
from shared import FREE_THREADED, Slotted, Thing
from using import fill_plain, get, put, use

# --- loops one after another, on one thread ---


@pytest.mark.parametrize("make", [Thing, Slotted])
def test_an_object_does_not_cross_to_the_next_loop(aiopool, run, bound, make):
    made = []
    pool = aiopool.Pool(lambda: made.append(make()) or made[-1], loop_bound=bound)
    processors = set()

    async def request():
        processors.add(aiopool.current_processor().id)
        with pool.borrow() as thing, pool.borrow() as other:
            assert thing is not other
        with pool.borrow() as again:
            assert again in (thing, other)

    for _ in range(5):
        run(request)
    assert len(processors) == 1
    assert len(made) == (10 if bound else 2)
    assert pool.stats().idle == (0 if bound else 2)


def test_a_contended_lock_fails_on_the_next_loop(aiopool, bound):
    locks = aiopool.Pool(asyncio.Lock, loop_bound=bound)

    async def two_at_once():
        with locks.borrow() as lock:
            await lock.acquire()
            waiter = asyncio.create_task(lock.acquire())
            await asyncio.sleep(0)
            lock.release()
            await waiter
            lock.release()

    asyncio.run(two_at_once())
    if bound:
        asyncio.run(two_at_once())
    else:
        with pytest.raises(RuntimeError, match="bound to a different event loop"):
            asyncio.run(two_at_once())


class Answer(asyncio.Protocol):
    """A server that always gives the same answer."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")


def test_a_client_session_fails_on_the_next_loop(aiopool, bound):
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp, of the extra test, is not installed")

    async def fetch():
        answer = Answer()
        server = await asyncio.get_running_loop().create_server(lambda: answer, "127.0.0.1")
        host, port = server.sockets[0].getsockname()
        try:
            async with sessions.borrow() as session, session.get(f"http://{host}:{port}/") as response:
                return await response.text()
        finally:
            server.close()
            if hasattr(answer, "transport"):
                answer.transport.close()

    closed = []

    async def close(session):
        await session.close()
        closed.append(session)

    sessions = aiopool.AsyncPool(aiohttp.ClientSession, close=close, loop_bound=bound)
    assert asyncio.run(fetch()) == "done"
    if bound:
        assert len(closed) == 1
        assert asyncio.run(fetch()) == "done"
        assert len(closed) == 2
    else:
        # The session was created for the first loop and still uses it, for its timeouts.
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            asyncio.run(fetch())
        assert len(closed) == 1


def test_an_anyio_event_fails_on_another_loop(aiopool, bound):
    events = aiopool.Pool(anyio.Event, loop_bound=bound)

    async def wait():
        with events.borrow() as event:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(event.wait)
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()

    # As in a test suite that runs each test on both.
    anyio.run(wait, backend="trio")
    if bound:
        anyio.run(wait, backend="asyncio")
    else:
        with pytest.raises(BaseExceptionGroup) as raised:
            anyio.run(wait, backend="asyncio")
        assert isinstance(raised.value.exceptions[0], RuntimeError)


def test_a_loop_that_runs_again_finds_its_objects(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)
    with contextlib.closing(asyncio.new_event_loop()) as a, contextlib.closing(asyncio.new_event_loop()) as b:
        on_a, on_b = a.run_until_complete(get(pool)), b.run_until_complete(get(pool))
        a.run_until_complete(put(pool, on_a))
        b.run_until_complete(put(pool, on_b))
        assert a.run_until_complete(get(pool)) is on_a
        assert b.run_until_complete(get(pool)) is on_b
        # A loop may move to another thread between two runs.
        a.run_until_complete(put(pool, on_a))
        assert in_thread(a.run_until_complete, get(pool)) is on_a
    assert pool.stats().created == 2


# --- loops at the same time ---


def test_an_object_is_never_stolen(aiopool, bound):
    pool = aiopool.Pool(Thing, loop_bound=bound)
    with loop_thread() as a, loop_thread() as b:
        a.call(pool.fill, 10)
        ours = {b.call(pool.get) for _ in range(8)}
        assert pool.stats().stolen == (0 if bound else 8)
        theirs = {a.call(pool.get) for _ in range(2)}
        assert len(ours & theirs) == 0
        assert pool.stats().created == (18 if bound else 10)


def test_a_cleanup_cycle_leaves_objects_on_their_loop(aiopool, run, bound):
    pool = aiopool.Pool(Thing, loop_bound=bound)

    async def found_in_the_victim():
        pool.fill(2)
        aiopool.cleanup()
        with loop_thread() as other:
            assert other.call(pool.get) is not None
        assert pool.stats().victim == (0 if bound else 1)
        pool.get(), pool.get()
        return pool.stats().victim, pool.stats().created

    # The other loop got one of our shared objects, so that we created another; or it created one itself.
    assert run(found_in_the_victim) == (2, 3)


def finalized_class(count):
    """A class, the threads in which its instances were freed, and an event for when `count` of them were."""
    freed_on, all_freed = [], threading.Event()

    class Finalized:
        def __del__(self):
            freed_on.append(threading.get_ident())
            if len(freed_on) == count:
                all_freed.set()

    return Finalized, freed_on, all_freed


def test_objects_that_cycles_drop_are_freed_on_their_own_loop(aiopool, bound):
    kind, freed_on, all_freed = finalized_class(3)
    pool = aiopool.Pool(kind, loop_bound=bound)
    with loop_thread() as own, loop_thread() as cleaner:
        own.call(pool.fill, 3)
        if not bound:
            # The private object would be freed with the last reference to the shard, wherever that is.
            own.call(lambda: pool.put(pool.get()))
        for _ in range(2):
            cleaner.call(aiopool.cleanup)
        # In turns: without a GIL an object is freed in the thread that created it, when that thread next runs bytecode.
        assert any(all_freed.wait(0.05) or own.call(all_freed.is_set) for _ in range(int(PATIENCE / 0.05)))
        if bound or FREE_THREADED:
            assert set(freed_on) == {own.thread.ident}
        else:
            assert own.thread.ident not in freed_on


def test_the_private_object_is_freed_on_its_loop_even_if_the_shard_is_still_referenced(aiopool):
    kind, freed_on, all_freed = finalized_class(1)
    pool = aiopool.Pool(kind, loop_bound=True)
    with loop_thread() as own:
        own.call(pool.fill, 1)
        (departure,) = pool._store.clear()
        assert not departure.free_newest()
        assert all_freed.wait(PATIENCE)
        assert (freed_on, len(departure)) == ([own.thread.ident], 0)


def test_objects_that_clear_drops_are_freed_on_their_own_loop(aiopool):
    kind, freed_on, all_freed = finalized_class(3)
    pool = aiopool.Pool(kind, loop_bound=True)
    with loop_thread() as own:
        own.call(pool.fill, 3)
        assert pool.clear() == 3
        assert all_freed.wait(PATIENCE)
        assert set(freed_on) == {own.thread.ident}
        assert pool.stats().idle == 0


def test_a_loop_that_does_not_run_drops_nothing_itself(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        refs = loop.run_until_complete(use(pool))
        aiopool.cleanup()
        aiopool.cleanup()
        assert [ref() for ref in refs] == [None] * 2
        # One at a time, so that they can be dropped in slices.
        loop.run_until_complete(fill_plain(pool, 4))
        (departure,) = pool._store.clear()
        assert [departure.free_newest() for _ in range(4)] == [True] * 3 + [False]


def test_a_large_victim_is_freed_in_slices_on_its_own_loop(aiopool, monkeypatch):
    monkeypatch.setattr(aiopool._core.freeing, "SLICE", 0.0)
    monkeypatch.setattr(aiopool._core.freeing, "SHARE", 0.0)
    pool = aiopool.Pool(Thing, loop_bound=True)

    async def main():
        pool.fill(20)
        refs = [weakref.ref(thing) for _, shard in pool._store.shards() for thing in shard.shared]
        assert pool.clear() == 20
        left = set()
        with anyio.fail_after(PATIENCE):
            while (alive := sum(ref() is not None for ref in refs)) > 0:
                left.add(alive)
                await asyncio.sleep(0)
        return len(left)

    assert asyncio.run(main()) > 10


# --- off its loop ---


def test_off_loop_a_loop_bound_pool_raises_with_advice(aiopool):
    made = []
    pool = aiopool.Pool(lambda: made.append(Thing()) or made[-1], loop_bound=True, name="locks")
    for call in (pool.get, lambda: pool.put(Thing()), lambda: pool.fill(1), lambda: pool.borrow().__enter__()):
        with pytest.raises(
            RuntimeError, match=r"'locks'.* no loop runs on this thread: get and put .* on a running loop"
        ):
            call()
    assert (made, pool.stats().processors, pool.clear()) == ([], (), 0)


def test_an_object_of_a_live_loop_cannot_be_put_on_another(aiopool):
    resets = []
    pool = aiopool.Pool(Thing, reset=resets.append, loop_bound=True, name="locks")
    with loop_thread() as own, loop_thread() as other:
        thing = own.call(pool.get)
        with pytest.raises(RuntimeError, match=r"Thing object.* another loop .*'locks'.* call_soon_threadsafe"):
            other.call(pool.put, thing)
        with pytest.raises(RuntimeError, match="no loop runs"):
            pool.put(thing)
        assert (resets, pool.stats().puts) == ([], 0)
        own.call(pool.put, thing)
        assert own.call(pool.get) is thing


@pytest.mark.parametrize("source", ["private", "shared", "victim"])
def test_an_object_without_weak_references_is_bound_each_time_it_is_checked_out(aiopool, source):
    pool = aiopool.Pool(Slotted, loop_bound=True)
    with loop_thread() as own, loop_thread() as other:
        own.call(pool.fill, 2 if source == "shared" else 1)
        if source == "victim":
            aiopool.cleanup()
        held = [own.call(pool.get) for _ in range(2 if source == "shared" else 1)]
        assert getattr(pool.stats(), source) == 1
        with pytest.raises(RuntimeError, match="another loop"):
            other.call(pool.put, held[-1])


def test_an_object_that_is_rejected_is_not_bound_any_more(aiopool):
    """Otherwise an object without weak references would leave its binding to the next one at its address."""
    pool = aiopool.Pool(Slotted, loop_bound=True, max_idle=1, reset=lambda thing: thing is not bad)

    async def main():
        nonlocal bad
        things = [pool.get() for _ in range(3)]
        bad = things.pop()
        for thing in (bad, *things):
            pool.put(thing)
        assert (pool.stats().rejected, pool.stats().over_max_idle) == (2, 1)
        assert pool._store.entries == {}

    bad = None
    asyncio.run(main())


@pytest.mark.parametrize("make", [Thing, Slotted])
def test_an_object_of_an_ended_loop_is_dropped_when_it_is_put(aiopool, run, bound, make):
    resets = []
    pool = aiopool.Pool(make, reset=resets.append, loop_bound=bound)
    thing = run(get, pool)
    run(put, pool, thing)
    assert (resets == []) == bound
    assert (pool.stats().idle, pool.stats().rejected) == ((0, 1) if bound else (1, 0))
    assert (run(get, pool) is thing) == (not bound)


def test_a_block_that_fails_off_loop_shows_its_own_error(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)

    async def enter():
        return (borrow := pool.borrow()), borrow.__enter__()

    borrow, _ = asyncio.run(enter())
    assert borrow.__exit__(ZeroDivisionError, ZeroDivisionError(), None) is None
    assert pool.stats().rejected == 1


def test_an_object_from_outside_belongs_to_the_loop_where_it_is_put(aiopool, run):
    pool = aiopool.Pool(loop_bound=True)
    things = [Thing(), Thing()]

    async def put_and_get(thing):
        assert pool.get() is None
        pool.put(thing)
        assert pool.get() is thing
        pool.put(thing)

    for thing in things:
        run(put_and_get, thing)
    assert pool.stats().hits == 2


# --- the rest of the interface ---


def test_max_idle_is_for_each_loop(aiopool):
    pool = aiopool.Pool(Thing, max_idle=2, loop_bound=True)
    with contextlib.closing(asyncio.new_event_loop()) as a, contextlib.closing(asyncio.new_event_loop()) as b:
        for loop in a, b:
            things = [loop.run_until_complete(get(pool)) for _ in range(3)]
            loop.run_until_complete(put(pool, *things))
        stats = pool.stats()
        # Two loops, but one thread.
        assert len(stats.processors) == 1
        assert (stats.idle, stats.rejected) == (4, 2)


@pytest.mark.anyio
async def test_idle_objects_are_dropped_after_the_idle_timeout(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True, idle_timeout=0.01)
    refs = await use(pool)
    with anyio.fail_after(PATIENCE):
        while any(ref() is not None for ref in refs):
            await anyio.sleep(0.001)
    assert pool.stats().cycles >= 2


@pytest.mark.anyio
async def test_get_and_put_are_in_the_order_of_every_pool(aiopool):
    pool = aiopool.Pool(loop_bound=True)
    private, older, newer = Thing(), Thing(), Thing()
    for thing in private, older, newer:
        pool.put(thing)
    with pytest.raises(ValueError, match="put each object once"):
        pool.put(private)
    assert [pool.get() for _ in range(4)] == [private, newer, older, None]
    assert (pool.stats().private, pool.stats().shared, pool.stats().misses) == (1, 2, 1)


@pytest.mark.anyio
async def test_a_loop_bound_pool_counts_as_every_pool(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True, max_idle=2, reset=lambda thing: thing is not bad)
    assert pool.stats().cycles == 0
    things = [pool.get() for _ in range(4)]
    bad = things.pop()
    for thing in (*things, bad):
        pool.put(thing)
    aiopool.cleanup()
    pool.get()
    stats = pool.stats()
    assert (stats.misses, stats.created, stats.victim, stats.puts) == (4, 4, 1, 4)
    assert (stats.rejected, stats.over_max_idle, stats.idle, stats.cycles) == (2, 1, 1, 1)


@pytest.mark.anyio
async def test_the_first_put_sets_a_timer(aiopool):
    pool, processor = aiopool.Pool(loop_bound=True, idle_timeout=0.1), aiopool.current_processor()
    pool.put(Thing())
    assert processor.wakes_at <= pool._store.idle_due()


def test_in_a_context_that_travelled_the_running_processor_counts(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)
    with loop_thread() as one, loop_thread() as other:
        context = one.call(lambda: (pool.get(), contextvars.copy_context())[1])
        other.call(context.run, pool.get)
        ids = {loop.call(aiopool.current_processor).id for loop in (one, other)}
    assert {each.id: each.gets for each in pool.stats().processors} == dict.fromkeys(ids, 1)


def test_a_guest_and_its_host_are_two_loops(aiopool, bound):
    pool = aiopool.Pool(Thing, loop_bound=bound)

    async def main():
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        pool.put(ours := pool.get())
        theirs = []

        async def guest():
            theirs.append(pool.get())
            pool.put(theirs[0])

        trio.lowlevel.start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=lambda outcome: done.set()
        )
        await asyncio.wait_for(done.wait(), PATIENCE)
        assert (theirs[0] is not ours) == bound
        assert pool.stats().idle == 1

    asyncio.run(main())


def test_two_loops_in_turn_in_one_context_keep_their_objects(aiopool):
    """The processor that the context binds moves between the loops, but the shards that it remembers must not."""
    pool = aiopool.Pool(Thing, loop_bound=True)
    context = contextvars.copy_context()

    async def use_one():
        obj = pool.get()
        pool.put(obj)
        return obj

    with asyncio.Runner() as one, asyncio.Runner() as two:
        used = [runner.run(use_one(), context=context) for _ in range(3) for runner in (one, two)]
    assert used == [used[0], used[1]] * 3
    assert used[0] is not used[1]


def use_again(pool):
    """Gets and puts. The pool counts them only if the puts were to shards that it still has."""
    objects = [pool.get(), pool.get()]
    assert {type(obj) for obj in objects} == {Thing}
    for obj in objects:
        pool.put(obj)
    assert pool.stats().idle == 2


class Meanwhile:
    """The bindings of a pool, with `happens` called once in the middle of the next put."""

    def __init__(self, pool, happens):
        self._store, self._real, self._happens = pool._store, pool._store._bindings, happens
        self._store._bindings = self

    def __getattr__(self, name):
        return getattr(self._real, name)

    def came_back(self, obj):
        self._real.came_back(obj)
        self._store._bindings = self._real
        self._happens()


@pytest.mark.anyio
async def test_isolation_that_another_thread_ends_in_the_middle_of_a_put(aiopool):
    """The shard of the put is freed with what was isolated, so it must not be remembered."""
    pool = aiopool.Pool(Thing, loop_bound=True)
    pool.put(pool.get())
    isolation = aiopool.testing.isolated()
    isolation.__enter__()
    obj = pool.get()
    Meanwhile(pool, lambda: isolation.__exit__(None, None, None))
    pool.put(obj)
    del obj
    use_again(pool)


@pytest.mark.anyio
async def test_isolation_that_another_thread_begins_in_the_middle_of_a_put(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)
    obj = pool.get()
    isolation = aiopool.testing.isolated()
    Meanwhile(pool, isolation.__enter__)
    pool.put(obj)
    assert pool.get() is not obj
    isolation.__exit__(None, None, None)


@pytest.mark.anyio
async def test_a_shard_that_overlapping_cycles_retire_late_is_forgotten(aiopool):
    """Two threads begin a generation at once, and the smaller number wins; then the larger one retires it."""
    pool = aiopool.Pool(Thing, loop_bound=True)
    pool.put(pool.get())
    contents = pool._store._contents
    obj = pool.get()
    smaller = next(contents.numbers)
    larger = contents.begin()
    contents.newest = smaller
    contents._publish()
    pool.put(obj)
    assert sum(map(len, contents.retire(larger))) == 1
    del obj
    use_again(pool)


def test_loops_that_come_and_go_while_cycles_run(aiopool):
    homes = {}
    crossed = []

    async def request(pool):
        for _ in range(10):
            thing = pool.get()
            loop = asyncio.get_running_loop()
            if homes.setdefault(thing, loop) is not loop:
                crossed.append(thing)
            await asyncio.sleep(0)
            pool.put(thing)

    async def requests(pool):
        await asyncio.gather(*(request(pool) for _ in range(3)))

    def serve(pool):
        for _ in range(15):
            asyncio.run(requests(pool))
            aiopool.cleanup()

    pool = aiopool.Pool(Thing, loop_bound=True)
    in_threads([lambda: serve(pool)] * 3)
    assert crossed == []
    assert pool.stats().idle == 0
    assert pool.stats().gets == pool.stats().puts == 3 * 15 * 30
    homes.clear()
    pool = aiopool.Pool(Thing)
    for _ in range(2):  # without cycles, which free what the next loop would take
        asyncio.run(requests(pool))
    assert crossed != [], "the negative control"


@pytest.mark.parametrize("intruder", ["get", "put", "cleanup", "end"])
@pytest.mark.parametrize("operation", ["get", "put"])
def test_an_interruption_at_any_bytecode_returns_no_object_twice(aiopool, operation, intruder):
    native = aiopool.implementation == "native"

    def scenario():
        pool = aiopool.Pool(loop_bound=True)
        idle, mine, other = Thing(), Thing(), Thing()
        pool.put(idle)
        intruders = {
            "get": pool.get,
            "put": lambda: pool.put(other),
            "cleanup": aiopool.cleanup,
            "end": lambda: aiopool._core.bound_loops.current_record().end(),
        }

        def check(result, intrusion):
            got = [thing for thing in (result, intrusion) if thing is not None]
            while (thing := pool.get()) is not None:
                got.append(thing)
            assert max(Counter(map(id, got)).values(), default=0) <= 1
            expected = {idle} | ({mine} if operation == "put" else set()) | ({other} if intruder == "put" else set())
            # The end of the loop drops idle objects, and objects put by code that had found the shard before.
            assert set(got) <= expected if intruder == "end" else set(got) <= expected and len(got) >= len(expected) - 1

        return (pool.get if operation == "get" else lambda: pool.put(mine)), intruders[intruder], check

    assert on_a_loop(lambda: at_every_bytecode(scenario, files=PACKAGE)) > (5 if native else 50)


# --- the fast path of the C extension ---


def test_all_of_this_holds_in_a_program_without_trio(aiopool, child_env):
    """Where trio is loaded, as here, the C extension leaves gets and puts of loop-bound objects to Python."""
    if aiopool.implementation == "python":
        pytest.skip("Python has no fast path for loop-bound objects")
    modules = ["test_loop_bound.py", "test_bound_loops.py", "test_observation.py"]
    run_program("loop_bound_without_trio.py", child_env, [str(Path(__file__).with_name(name)) for name in modules])
