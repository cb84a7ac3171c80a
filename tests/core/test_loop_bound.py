"""`loop_bound=True`: an object is handed out on its own loop only, and goes when that ends.

Each test of a danger shows it first, with a pool that is not loop-bound.
"""

import asyncio
import contextlib
import gc
import os
import threading
import weakref
from collections import Counter

import aiohttp
import anyio
import anyio.lowlevel
import pytest
import trio.testing
from children import run_program
from interrupts import PACKAGE, at_every_bytecode, on_a_loop
from loops import PATIENCE, in_thread, in_threads, loop_thread
from shared import FREE_THREADED, Thing


class Slotted:
    """Something that cannot be referenced weakly, as a tuple."""

    __slots__ = ()


@pytest.fixture
def run(anyio_backend):
    """Run an async function on a loop of its own, to its end."""
    backend, options = anyio_backend
    return lambda function, *args: anyio.run(function, *args, backend=backend, backend_options=options)


@pytest.fixture(params=[False, True], ids=["crossing", "bound"])
def bound(request):
    """Whether the pool is loop-bound; without that, a test asserts that things go wrong."""
    return request.param


async def get(pool):
    return pool.get()


async def put(pool, *things):
    for thing in things:
        pool.put(thing)


async def fill_plain(pool, n):
    pool.fill(n)


async def use(pool):
    """Get two objects and put them back; weak references to them."""
    things = [pool.get(), pool.get()]
    refs = [weakref.ref(thing) for thing in things]
    while things:
        pool.put(things.pop())
    return refs


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
    assert processors == {1}
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
    """A server that says one thing."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")


def test_a_client_session_fails_on_the_next_loop(aiopool, bound):
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
        # Made for the first loop, it goes on using it: it starts its time limits there.
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

    # As a test suite does that runs each test on both.
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


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
@pytest.mark.parametrize("kind", ["no_pool", "loop_bound", "loop_bound_with_close"])
def test_loops_that_were_never_closed_are_collected_with_their_descriptors(child_env, kind):
    assert run_program("unclosed_loops.py", child_env, arguments=[kind]) == "ok\n"


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


def test_a_cleanup_cycle_leaves_them_where_they_are(aiopool, run, bound):
    pool = aiopool.Pool(Thing, loop_bound=bound)

    async def found_in_the_victim():
        pool.fill(2)
        aiopool.cleanup()
        with loop_thread() as other:
            assert other.call(pool.get) is not None
        assert pool.stats().victim == (0 if bound else 1)
        pool.get(), pool.get()
        return pool.stats().victim, pool.stats().created

    # The other loop got a shared one of ours, and so we made one more; or it made one itself.
    assert run(found_in_the_victim) == (2, 3)


def test_objects_that_cycles_drop_are_freed_on_their_own_loop(aiopool, bound):
    died_on, dead = [], threading.Event()

    class Mortal:
        def __del__(self):
            died_on.append(threading.get_ident())
            if len(died_on) == 3:
                dead.set()

    pool = aiopool.Pool(Mortal, loop_bound=bound)
    with loop_thread() as home, loop_thread() as cleaner:
        home.call(pool.fill, 3)
        if not bound:
            # Its private one would go with the last reference to the shard, wherever that is.
            home.call(lambda: pool.put(pool.get()))
        for _ in range(2):
            cleaner.call(aiopool.cleanup)
        # In turns: without a GIL an object dies in the thread that made it, once that thread runs bytecode again.
        assert any(dead.wait(0.05) or home.call(dead.is_set) for _ in range(int(PATIENCE / 0.05)))
        assert (set(died_on) == {home.thread.ident}) == (bound or FREE_THREADED)


def test_the_private_object_is_freed_on_its_loop_even_if_the_shard_is_still_referenced(aiopool):
    died_on, dead = [], threading.Event()

    class Mortal:
        def __del__(self):
            died_on.append(threading.get_ident())
            dead.set()

    pool = aiopool.Pool(Mortal, loop_bound=True)
    with loop_thread() as home:
        home.call(pool.fill, 1)
        (departure,) = pool._store.clear()
        assert not departure.free_newest()
        assert dead.wait(PATIENCE)
        assert (died_on, len(departure)) == ([home.thread.ident], 0)


def test_objects_that_clear_drops_are_freed_on_their_own_loop(aiopool):
    died_on, dead = [], threading.Event()

    class Mortal:
        def __del__(self):
            died_on.append(threading.get_ident())
            if len(died_on) == 3:
                dead.set()

    pool = aiopool.Pool(Mortal, loop_bound=True)
    with loop_thread() as home:
        home.call(pool.fill, 3)
        assert pool.clear() == 3
        assert dead.wait(PATIENCE)
        assert set(died_on) == {home.thread.ident}
        assert pool.stats().idle == 0


def test_a_loop_that_does_not_run_drops_nothing_itself(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        refs = loop.run_until_complete(use(pool))
        aiopool.cleanup()
        aiopool.cleanup()
        assert [ref() for ref in refs] == [None] * 2
        # One at a time, so that whoever drops them can do it in slices.
        loop.run_until_complete(fill_plain(pool, 4))
        (departure,) = pool._store.clear()
        assert [departure.free_newest() for _ in range(4)] == [True] * 3 + [False]


def test_a_big_victim_is_dropped_in_slices_on_its_own_loop(aiopool, monkeypatch):
    monkeypatch.setattr(aiopool._core.bound_loops, "SLICE", 0.0)
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


# --- the end of a loop ---


def test_idle_objects_are_dropped_with_their_loop(aiopool, run, bound):
    pool = aiopool.Pool(Thing, loop_bound=bound)
    refs = run(use, pool)
    assert [ref() is None for ref in refs] == [bound] * 2
    stats = pool.stats()
    assert (stats.idle, stats.dropped) == ((0, 2) if bound else (2, 0))
    assert aiopool._core.bound_loops.LoopRecord._all == {}


def test_the_victim_is_dropped_with_its_loop_too(aiopool, run):
    pool = aiopool.Pool(Thing, loop_bound=True)

    async def use_and_clean():
        refs = await use(pool)
        aiopool.cleanup()
        return refs + await use(pool)

    refs = run(use_and_clean)
    assert [ref() for ref in refs] == [None] * 4
    assert pool.stats().idle == 0


def test_a_loop_that_is_only_closed_has_ended(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)
    loop = asyncio.new_event_loop()
    refs = loop.run_until_complete(use(pool))
    assert pool.stats().idle == 2
    loop.close()
    assert [ref() for ref in refs] == [None] * 2


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_loop_that_was_never_closed_has_ended_when_it_is_collected(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)
    loop = asyncio.new_event_loop()
    refs = loop.run_until_complete(use(pool))
    del loop
    gc.collect()
    assert [ref() for ref in refs] == [None] * 2


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop with virtual time, which jumps to the next timer when nothing else is to be done."""

    jumps = 0
    _ahead = 0.0

    def time(self):
        return super().time() + self._ahead

    def _run_once(self):
        if not self._ready and self._scheduled:
            JumpingLoop.jumps += 1
            self._ahead += max(0.0, self._scheduled[0].when() - self.time())
        super()._run_once()


@pytest.mark.parametrize("bound", [False, True])
def test_a_loop_with_virtual_time_does_not_jump_to_an_idle_pool(aiopool, bound):
    pool = aiopool.Pool(Thing, loop_bound=bound)

    async def main():
        pool.put(pool.get())
        woken = asyncio.Event()
        threading.Timer(0.05, asyncio.get_running_loop().call_soon_threadsafe, [woken.set]).start()
        await woken.wait()
        assert pool.stats().idle == 1

    JumpingLoop.jumps = 0
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())
        assert JumpingLoop.jumps == 0


def test_a_trio_clock_that_jumps_does_not_jump_to_it(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True, idle_timeout=None)

    async def main():
        await use(pool)
        start = trio.current_time()
        # All tasks wait, as far as the clock can tell.
        await trio.to_thread.run_sync(threading.Event().wait, 0.05)
        return trio.current_time() - start

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01)) == 0


def test_a_loop_whose_end_was_not_noticed_is_not_mistaken_for_another(aiopool):
    pool = aiopool.Pool(Thing, loop_bound=True)
    records = aiopool._core.bound_loops.LoopRecord._all

    async def at_the_address_of_another():
        # As if this loop had come to lie where an ended one lay.
        stale._id = id(asyncio.get_running_loop())
        records[stale._id] = records.pop(id(loop))
        return pool.get()

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        thing = loop.run_until_complete(get(pool))
        loop.run_until_complete(put(pool, thing))
        stale = records[id(loop)]()
        with contextlib.closing(asyncio.new_event_loop()) as other:
            assert other.run_until_complete(at_the_address_of_another()) is not thing
        assert stale.mark.ended


def test_a_record_that_died_in_the_making_does_not_shut_its_loop_out(aiopool):
    """An exception can come between the two steps that register a record and tie it to its loop."""
    pool = aiopool.Pool(Thing, loop_bound=True)

    async def main():
        died = weakref.ref(Thing())
        aiopool._core.bound_loops.LoopRecord._all[id(asyncio.get_running_loop())] = died
        thing = pool.get()
        pool.put(thing)
        assert pool.get() is thing

    asyncio.run(main())


def test_pools_and_loops_that_come_and_go_leave_nothing(aiopool, run):
    async def with_two_pools(kept):
        await use(aiopool.Pool(Thing, loop_bound=True))
        if FREE_THREADED:
            gc.collect()  # from 3.14 on a pool lives until then
        await use(kept)
        (record,) = aiopool._core.bound_loops.records()
        return len(record.parts), len(kept._store.shards())

    kept = aiopool.Pool(Thing, loop_bound=True)
    for _ in range(5):
        assert run(with_two_pools, kept) == (1, 1)
    assert (kept._store.shards(), kept._store.entries) == ([], {})


@pytest.mark.anyio
@pytest.mark.parametrize("make", [Thing, Slotted])
async def test_an_object_is_bound_while_it_lives_or_is_checked_out(aiopool, make):
    pool = aiopool.Pool(make, loop_bound=True)
    thing = pool.get()
    assert len(pool._store.entries) == 1
    for _ in range(3):
        pool.put(thing)
        assert len(pool._store.entries) == (1 if make is Thing else 0)
        assert pool.get() is thing
    assert len(pool._store.entries) == 1
    del thing
    assert len(pool._store.entries) == (0 if make is Thing else 1)


# --- off its loop ---


def test_off_loop_a_loop_bound_pool_raises_with_advice(aiopool):
    made = []
    pool = aiopool.Pool(lambda: made.append(Thing()) or made[-1], loop_bound=True, name="locks")
    for use in (pool.get, lambda: pool.put(Thing()), lambda: pool.fill(1), lambda: pool.borrow().__enter__()):
        with pytest.raises(
            RuntimeError, match=r"'locks'.* no loop runs on this thread: get and put .* on a running loop"
        ):
            use()
    assert (made, pool.stats().processors, pool.clear()) == ([], (), 0)


def test_what_belongs_to_a_live_loop_cannot_be_put_elsewhere(aiopool):
    resets = []
    pool = aiopool.Pool(Thing, reset=resets.append, loop_bound=True, name="locks")
    with loop_thread() as home, loop_thread() as other:
        thing = home.call(pool.get)
        with pytest.raises(RuntimeError, match=r"Thing object.* another loop .*'locks'.* call_soon_threadsafe"):
            other.call(pool.put, thing)
        with pytest.raises(RuntimeError, match="no loop runs"):
            pool.put(thing)
        assert (resets, pool.stats().puts) == ([], 0)
        home.call(pool.put, thing)
        assert home.call(pool.get) is thing


@pytest.mark.parametrize("make", [Thing, Slotted])
def test_what_belongs_to_an_ended_loop_is_dropped_when_it_is_put(aiopool, run, bound, make):
    resets = []
    pool = aiopool.Pool(make, reset=resets.append, loop_bound=bound)
    thing = run(get, pool)
    run(put, pool, thing)
    assert (resets == []) == bound
    assert (pool.stats().idle, pool.stats().rejected) == ((0, 1) if bound else (1, 0))
    assert run(get, pool) is not thing or not bound


def test_an_async_pool_neither_resets_nor_closes_objects_of_an_ended_loop(aiopool, run):
    calls = []
    pool = aiopool.AsyncPool(Thing, reset=calls.append, close=calls.append, loop_bound=True)
    thing = run(pool.get)
    run(pool.put, thing)
    assert calls == []
    assert (pool.stats().idle, pool.stats().rejected) == (0, 1)


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
        assert [each.id for each in stats.processors] == [1]
        assert (stats.idle, stats.rejected) == (4, 2)


@pytest.mark.anyio
async def test_idle_objects_go_after_the_idle_timeout(aiopool):
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
    in_threads([lambda: serve(pool)] * 3)
    assert crossed != []


@pytest.mark.parametrize("intruder", ["get", "put", "cleanup", "end"])
@pytest.mark.parametrize("operation", ["get", "put"])
def test_an_interruption_at_any_bytecode_hands_nothing_out_twice(aiopool, operation, intruder):
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
            # The end of the loop drops what is idle, and what is put by who had found the shard before.
            assert set(got) <= expected if intruder == "end" else set(got) <= expected and len(got) >= len(expected) - 1

        return (pool.get if operation == "get" else lambda: pool.put(mine)), intruders[intruder], check

    assert on_a_loop(lambda: at_every_bytecode(scenario, files=PACKAGE)) > (5 if native else 50)


# --- AsyncPool ---


def async_pool(aiopool, begun, done, **kwargs):
    async def new():
        await anyio.lowlevel.checkpoint()
        return Thing()

    async def close(thing):
        begun.append(thing)
        await anyio.lowlevel.checkpoint()
        done.append(thing)

    return aiopool.AsyncPool(new, close=close, **kwargs)


async def fill(pool, n):
    await pool.fill(n)


def test_what_an_async_pool_keeps_for_a_loop_is_closed_at_its_end(aiopool, run, anyio_backend, bound):
    begun, done = [], []
    pools = [async_pool(aiopool, begun, done, loop_bound=bound) for _ in range(2)]

    async def main():
        for pool in pools:
            await pool.fill(2)

    run(main)
    assert len(begun) == len(set(begun)) == (4 if bound else 0)
    # trio lets nothing wait any more at its end: there, close is called, and cancelled where it waits.
    assert len(done) == (4 if bound and anyio_backend[0] == "asyncio" else 0)
    assert [pool.stats().idle for pool in pools] == ([0, 0] if bound else [2, 2])
    assert (aiopool._core.bound_loops.LoopRecord._all == {}) or not bound


def test_what_is_put_after_that_is_closed_at_once(aiopool):
    begun, done, generators = [], [], []
    pool = async_pool(aiopool, begun, done, loop_bound=True)

    async def hold():
        thing = await pool.get()
        try:
            yield
        finally:
            # Meanwhile the loop shuts down its other async generators.
            for _ in range(5):
                await asyncio.sleep(0)
            await pool.put(thing)

    async def main():
        generators.append(hold())
        await anext(generators[0])

    asyncio.run(main())
    assert len(done) == len(begun) == 1
    assert pool.stats().idle == 0


def test_a_loop_that_is_only_closed_closes_nothing(aiopool):
    begun, done = [], []
    pool = async_pool(aiopool, begun, done, loop_bound=True)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(pool.fill(2))
    loop.close()
    assert begun == []
    assert pool.stats().idle == 0


def test_aclose_closes_the_objects_of_this_loop(aiopool):
    begun, done = [], []
    pool = async_pool(aiopool, begun, done, loop_bound=True)
    with loop_thread() as other:
        other.run(pool.fill(2))

        async def main():
            await pool.fill(3)
            await pool.aclose()
            return len(done), pool.stats().idle

        assert asyncio.run(main()) == (3, 2)
        other.run(pool.aclose())
        assert (len(done), pool.stats().idle) == (5, 0)


def test_a_close_that_fails_at_the_end_is_reported_and_the_others_are_closed(aiopool):
    closed, reports = [], []

    async def close(thing):
        closed.append(thing)
        raise OSError("cannot close")

    pools = [aiopool.AsyncPool(Thing, close=close, loop_bound=True) for _ in range(2)]

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["exception"]))
        for pool in pools:
            await pool.fill(1)

    asyncio.run(main())
    assert len(closed) == 2
    (report,) = reports
    assert isinstance(report, ExceptionGroup)


def test_an_async_pool_that_is_gone_before_its_loop_leaves_no_trace(aiopool, run):
    async def main():
        await async_pool(aiopool, [], [], loop_bound=True).fill(2)
        gc.collect()
        (record,) = aiopool._core.bound_loops.records()
        return len(record.closers), len(record.parts)

    assert run(main) == (0, 0)


def test_get_and_put_of_a_loop_bound_async_pool(aiopool, run):
    pool = aiopool.AsyncPool(Thing, loop_bound=True, max_idle=1, reset=lambda thing: None)

    async def use():
        async with pool.borrow() as one, pool.borrow() as two:
            assert one is not two
        assert pool.stats().idle == 1
        async with pool.borrow() as again:
            assert again in (one, two)
        return again

    assert run(use) is not run(use)
    with loop_thread() as home, loop_thread() as other:
        thing = home.run(pool.get())
        with pytest.raises(RuntimeError, match="belongs to another loop"):
            other.run(pool.put(thing))
        home.run(pool.put(thing))


# --- fork ---


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_makes_its_own(aiopool, child_env):
    assert run_program("fork_loop_bound.py", child_env, options=["-W", "ignore::DeprecationWarning"]) == "ok\n"
