"""The garbage collector as a clock: which of its reports mean a full collection, and so a cleanup cycle."""

import gc
import itertools

import pytest
from loops import in_thread
from shared import FREE_THREADED, Thing

# The reports of gc.callbacks while 3,000,000 cycles were created on a heap of 200,000 objects, by interpreter.
REPORTS = {
    "generational (3.13.0)": ([*[*[0] * 10, 1] * 64, 2] * 2, False, 2),
    "incremental (3.14.0)": ([1] * 1529, False, 15),
    "free-threaded (3.14.7)": ([0] * 13, True, 13),
    "gc.collect() anywhere": ([2], False, 1),
}


def cycles_of(is_full, reports):
    return sum(map(is_full, reports))


@pytest.mark.parametrize(("reports", "every", "cycles"), REPORTS.values(), ids=REPORTS)
def test_full_collections_are_recognized_on_each_build(aiopool, reports, every, cycles):
    clock = aiopool._core.gc_clock.GCClock(every_collection_is_full=every)
    assert cycles_of(clock.is_full, reports) == cycles


@pytest.mark.parametrize("earlier", [[], [1] * 42 + [0], [1] * 42 + [2]], ids=["new", "young", "full"])
def test_a_hundred_increments_are_a_full_collection(aiopool, earlier):
    """They are counted anew after any other report."""
    clock = aiopool._core.gc_clock.GCClock(every_collection_is_full=False)
    cycles_of(clock.is_full, earlier)
    assert [number for number in range(1, 301) if clock.is_full(1)] == [100, 200, 300]


@pytest.mark.parametrize("rule", [lambda generation: generation == 2, lambda generation: True])
def test_neither_simple_rule_is_right_on_every_build(rule):
    assert [cycles_of(rule, reports) for reports, _, _ in REPORTS.values()] != [2, 15, 13, 1]


@pytest.mark.parametrize(("reports", "every", "cycles"), REPORTS.values(), ids=REPORTS)
def test_the_callback_runs_a_cycle_for_each_full_collection(reference, monkeypatch, reports, every, cycles):
    monkeypatch.setattr(
        reference._core.gc_clock, "_clock", reference._core.gc_clock.GCClock(every_collection_is_full=every)
    )
    pool = reference.Pool()
    for generation, phase in itertools.product(reports, ("start", "stop")):
        reference._core.gc_clock._on_gc(phase, {"generation": generation, "collected": 0, "uncollectable": 0})
    assert pool.stats().cycles == cycles


@pytest.mark.skipif(FREE_THREADED, reason="each collection is full there")
def test_callbacks_run_when_a_collection_starts_and_when_it_has_stopped(aiopool, monkeypatch):
    called = []
    for name in ("on_start", "on_stop", "on_full", "on_partial"):
        monkeypatch.setattr(aiopool._core.gc_clock, name, [lambda name=name: called.append(name)])
    clock = aiopool._core.gc_clock
    clock._on_gc("start", {"generation": 2})
    assert called == ["on_start"]
    clock._on_gc("stop", {"generation": 2})
    assert called == ["on_start", "on_stop", "on_full"]
    clock._on_gc("stop", {"generation": 0})
    assert called[3:] == ["on_stop", "on_partial"]


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_every_kind_of_collection_with_full_pools(aiopool, generation):
    pool = aiopool.Pool()
    things = [Thing() for _ in range(5)]
    for thing in things:
        pool.put(thing)
    for _ in range(5):
        gc.collect(generation)
        obj = pool.get()
        assert obj in things
        pool.put(obj)
    # Without a GIL each collection is full.
    assert pool.stats().cycles == (5 if generation == 2 or FREE_THREADED else 0)


def test_the_callback_is_added_again_after_gc_callbacks_was_cleared(aiopool):
    pool = aiopool.Pool()
    others = list(gc.callbacks)
    gc.callbacks.clear()
    try:
        in_thread(pool.put, Thing())
        assert aiopool._core.gc_clock._on_gc in gc.callbacks
        gc.collect()
        assert pool.stats().cycles == 1
    finally:
        gc.callbacks[:] = others
