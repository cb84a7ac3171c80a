"""Helpers to drive coroutines by hand, await by await, and to track the objects of an async pool."""

import types

from shared import Thing


class Stop(BaseException):
    """Thrown into a coroutine where it waits, as a loop throws a cancellation."""


@types.coroutine
def suspend():
    """Wait once, until the driver of the coroutine continues it."""
    yield


def step(coroutine):
    """Drive `coroutine` to its next await. Returns `True` if it is done."""
    try:
        coroutine.send(None)
    except StopIteration:
        return True
    return False


def finish(coroutine):
    """Drive `coroutine` to its end. Returns its result, and how often it waited."""
    for waits in range(100):
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value, waits
    raise AssertionError("it waits for ever")


def result_of(coroutine):
    """Drive `coroutine` to its end, and return its result."""
    return finish(coroutine)[0]


def throw(coroutine):
    """Throw `Stop` into `coroutine`, which may await more, and return the `Stop` with which it must end."""
    try:
        coroutine.throw(Stop())
        finish(coroutine)
    except Stop as stop:
        return stop
    raise AssertionError("it went on as if nothing had happened")


class Tracker:
    """Three callbacks that wait several times each, and record the state of each object."""

    def __init__(self, *, good=True):
        self.good = good
        self.made = []
        self.dirty = set()
        self.closing = []
        self.closed = []

    async def new(self):
        thing = Thing()
        for _ in range(2):
            await suspend()
        self.made.append(thing)
        return thing

    async def reset(self, thing):
        self.dirty.add(thing)
        for _ in range(2):
            await suspend()
        self.dirty.discard(thing)
        return self.good

    async def close(self, thing):
        self.closing.append(thing)
        for _ in range(2):
            await suspend()
        self.closed.append(thing)


def idle_in(pool):
    """The idle objects, left where they are."""
    return [thing for _, shard in pool._store.shards() for thing in [*shard.private, *shard.shared]]


def check_objects(pool, tracker, hands, *, async_close=True):
    """Check that each object is in one place, that nothing half-done is idle, and that the counts are right."""
    idle = idle_in(pool)
    places = [*idle, *hands, *(tracker.closing if async_close else [])]
    assert len(set(places)) == len(places), "an object is in two places"
    if async_close:
        assert set(places) == set(tracker.made), "an object is lost, or was never finished"
    else:
        assert set(places) <= set(tracker.made)
    assert not tracker.dirty & set(idle), "a half-reset object is idle"
    stats = pool.stats()
    assert stats.idle == len(idle)
    assert stats.hits + stats.created - stats.puts == len(hands), "the checked-out objects do not add up"
    assert stats.dropped == len(tracker.made) - len(idle) - len(hands)
