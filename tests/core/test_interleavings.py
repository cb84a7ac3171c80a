"""Finalizers, signal handlers and other threads interrupt every operation between any two bytecodes.

After each interruption, no object may be in two places: held by two callers, or by one and by the pool. None may be
lost, unless the pool was told to drop objects.
"""

import contextvars
import gc
import signal
import threading

import pytest
from interrupts import PACKAGE, at_every_bytecode
from loops import loop_thread, on_a_loop
from shared import Thing, no_other_pools

OPERATIONS = ["get", "put", "borrow", "stats", "cleanup", "clear", "pin", "first_get", "first_put", "steal", "fill"]
INTRUSIONS = ["get", "put", "put_get", "get_put", "cleanup", "clear", "stats", "collect"]

DROPPING = {"cleanup", "clear", "collect"}

IN_C = {"get", "put", "borrow", "first_put"}
"""Operations that the C extension can do without a single bytecode, so that there may be no gap."""


def in_every_gap(aiopool, operation, intrusion, *, idle, run_intruder=lambda call: call()):
    """Run the scenario once for each gap in `operation`, and check that there were gaps."""
    set_up = scenario(aiopool, operation, intrusion, idle=idle, run_intruder=run_intruder)
    gaps = at_every_bytecode(set_up, files=PACKAGE)
    if aiopool.implementation == "python" or operation not in IN_C:
        assert gaps > 10


def objects_in(pool):
    """All objects in the pool, each as often as it is there, including those out of the getter's reach."""
    shards = {id(shard): shard for shards in (pool._store.primary, pool._store.victim) for shard in shards.values()}
    return [obj for shard in shards.values() for obj in (*shard.private, *shard.shared)]


class Tracker:
    """Tracks the objects that are created, and checks that the pool, the operation and the intruder hold each once."""

    def __init__(self):
        self.known = []

    def new(self):
        thing = Thing()
        self.known.append(thing)
        return thing

    def check(self, pool, *results, may_drop):
        hands = [obj for result in results for obj in (result if isinstance(result, list) else [result]) if obj]
        places = [id(obj) for obj in hands + objects_in(pool)]
        assert len(places) == len(set(places)), "one object in two places"
        strangers = set(places) - {id(obj) for obj in self.known}
        assert not strangers, "an object appeared that was never put"
        if not may_drop:
            assert len(places) == len(self.known), "an object was lost"


def operations(aiopool, pool, tracker):
    """Each operation, as a function that returns the objects that it leaves checked out."""

    def borrow():
        with pool.borrow():
            pass

    def first_get():
        # As a context that has no binding yet, and a processor that has no shard yet.
        pool.clear()
        return contextvars.Context().run(pool.get)

    def first_put():
        return contextvars.Context().run(pool.put, tracker.new())

    def steal():
        return aiopool._core.store._steal(pool._store.primary, 7)

    return {
        "get": pool.get,
        "put": lambda: pool.put(tracker.new()),
        "borrow": borrow,
        "stats": lambda: pool.stats() and None,
        "cleanup": aiopool.cleanup,
        "clear": lambda: pool.clear() and None,
        "pin": lambda: contextvars.Context().run(aiopool.current_processor) and None,
        "first_get": first_get,
        "first_put": first_put,
        "steal": steal,
        "fill": lambda: pool.fill(2),
        "put_get": lambda: [pool.put(tracker.new()), pool.get()],
        "get_put": lambda: pool.put(pool.get()),
        "collect": lambda: gc.collect() and None,
    }


def scenario(aiopool, operation, intrusion, *, idle, run_intruder=lambda call: call(), make=None):
    """A pool with some idle objects, the operation, the intruder and the check."""

    def set_up():
        # On free-threaded builds the pools of earlier runs wait for a collection. A cycle would visit more of them in
        # each run, so there would always be another gap.
        aiopool._core.registry._pools.clear()
        pool = (make or aiopool.Pool)()
        tracker = Tracker()
        pool._new = tracker.new
        for _ in range(idle):
            pool.put(tracker.new())
        todo = operations(aiopool, pool, tracker)
        may_drop = bool({operation, intrusion} & DROPPING) or operation == "first_get"

        def check(result, intrusion_result):
            tracker.check(pool, result, intrusion_result, may_drop=may_drop)

        return todo[operation], lambda: run_intruder(todo[intrusion]), check

    return set_up


@pytest.fixture(autouse=True)
def _cheap_collections():
    """Make full collections cheap: there is one in each of ten thousand gaps."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _no_other_pools(request):
    """Hide other pools: a cleanup cycle visits all pools, and each bytecode of that is a gap."""
    package = request.getfixturevalue("reference" if "reference" in request.fixturenames else "aiopool")
    with no_other_pools(package):
        yield


@pytest.mark.parametrize("idle", [0, 2])
@pytest.mark.parametrize("intrusion", INTRUSIONS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_finalizer_in_any_gap(aiopool, operation, intrusion, idle):
    on_a_loop(lambda: in_every_gap(aiopool, operation, intrusion, idle=idle))


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs a user-defined signal")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_signal_handler_in_any_gap(aiopool, operation):
    handled = []

    def raise_signal(call):
        old = signal.signal(signal.SIGUSR1, lambda *_: handled.append(call()))
        try:
            signal.raise_signal(signal.SIGUSR1)
        finally:
            signal.signal(signal.SIGUSR1, old)
        return handled[-1]

    on_a_loop(lambda: in_every_gap(aiopool, operation, "get_put", idle=2, run_intruder=raise_signal))


@pytest.mark.parametrize("intrusion", ["get", "put", "get_put", "cleanup", "clear", "stats"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_another_loop_in_any_gap(aiopool, operation, intrusion):
    with loop_thread() as other:
        on_a_loop(lambda: in_every_gap(aiopool, operation, intrusion, idle=3, run_intruder=other.call))


@pytest.mark.parametrize("intrusion", ["get", "put", "get_put"])
@pytest.mark.parametrize("operation", ["get", "put", "cleanup"])
def test_an_off_loop_operation_is_interrupted_too(aiopool, operation, intrusion):
    in_every_gap(aiopool, operation, intrusion, idle=3)


# --- negative controls: simpler versions that the tests above must see fail ---


def control_pool(aiopool, **methods):
    """A subclass of `Pool` with one method replaced by a simpler version."""
    return type("ControlPool", (aiopool.Pool,), methods)


def with_control_store(aiopool, monkeypatch, **methods):
    """Pools whose store has one method replaced by a simpler version."""
    store = type("ControlStore", (aiopool._core.store.Store,), {"__slots__": (), **methods})
    monkeypatch.setattr(aiopool._pool, "Store", store)
    return aiopool.Pool


def breaks(aiopool, make, operation, intrusion, idle):
    on_a_loop(
        lambda: at_every_bytecode(
            scenario(aiopool, operation, intrusion, idle=idle, make=make), files=(*PACKAGE, "test_interleavings")
        )
    )


def test_reading_and_then_clearing_the_private_slot_returns_an_object_twice(reference):
    def get(self):
        for shard in self._store.primary.values():
            for obj in shard.private:
                shard.private.clear()
                return obj
        return reference.Pool.get(self)

    with pytest.raises(AssertionError, match="one object in two places"):
        breaks(reference, control_pool(reference, get=get), "get", "get", 1)


def test_looking_up_and_then_storing_a_shard_loses_objects(reference, monkeypatch):
    def _add_shard(self, id, processor):
        shard = self.primary[id] = reference._core.shard.Shard(self._counters(id))
        return shard

    make = with_control_store(reference, monkeypatch, _add_shard=_add_shard)
    with pytest.raises(AssertionError, match="an object was lost"):
        breaks(reference, make, "first_put", "put", 0)


def test_a_rotation_that_empties_primary_first_makes_objects_invisible(reference, monkeypatch):
    def rotate(self):
        primary, self.primary = self.primary, {}
        self.fast_get = self.fast_put = self.primary
        retired, self.victim = self.victim, primary
        return list(retired.values())

    def stays_visible(make):
        def set_up():
            pool = make()
            thing = Thing()
            pool.put(Thing())
            pool.put(thing)
            return reference.cleanup, pool.get, lambda _, got: seen.append(got)

        seen = []
        on_a_loop(lambda: at_every_bytecode(set_up, files=(*PACKAGE, "test_interleavings")))
        return None not in seen[:-1]

    assert stays_visible(reference.Pool)
    assert not stays_visible(with_control_store(reference, monkeypatch, rotate=rotate))


def test_waiting_for_a_lock_is_a_deadlock(reference, monkeypatch):
    class WaitedFor:
        """A lock whose `acquire` always waits; it fails the test instead of waiting for ever."""

        def __init__(self):
            self._lock = threading.Lock()

        def acquire(self, blocking=True):
            assert self._lock.acquire(timeout=0.05), "deadlock"
            return True

        def release(self):
            self._lock.release()

    monkeypatch.setattr(reference._core.shard, "Lock", WaitedFor)
    with pytest.raises(AssertionError, match="deadlock"):
        breaks(reference, reference.Pool, "put", "put", 1)


@pytest.mark.parametrize("held", [False, True], ids=["as it is", "negative control"])
def test_no_lock_is_held_while_an_object_is_freed(reference, held):
    """A finalizer that puts into its object's own shard gets the shared list, unless the lock is held."""

    class PutsBack(Thing):
        def __del__(self):
            shard.put(private.pop())

    shard = reference._core.shard.Shard(reference._core.shard.Counters())
    private = [Thing(), Thing()]
    shard.put(private.pop())
    shard.put(PutsBack())
    if held:
        with shard.lock:
            shard.free_newest()
    else:
        shard.free_newest()
    assert (len(shard.private), len(shard.shared)) == ((2, 0) if held else (1, 1))
