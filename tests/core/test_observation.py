"""The observer sees every get and put while it is set, also those that would take the fast path, and no others."""

import asyncio

import pytest
from shared import Thing


class Recorder:
    def __init__(self):
        self.calls = []

    def created(self, pool):
        self.calls.append("created")

    def got(self, pool, obj):
        self.calls.append("got")

    def putting(self, pool, obj):
        self.calls.append("putting")

    def not_kept(self, pool, obj):
        self.calls.append("not kept")


@pytest.mark.parametrize("loop_bound", [False, True])
def test_gets_and_puts_are_observed_from_the_next_one_on_and_as_long_as_an_observer_is_set(aiopool, loop_bound):
    recorder, observe = Recorder(), aiopool._core.observation.observe

    def use(pool):
        for _ in range(3):
            pool.put(pool.get())

    async def main():
        pool = aiopool.Pool(Thing, loop_bound=loop_bound)
        use(pool)  # from here on the fast path finds a shard
        observe(recorder)
        try:
            use(pool)
            aiopool.cleanup()  # the new generation is not published to the fast paths either
            use(pool)
            assert recorder.calls == ["got", "putting"] * 6
            newer = aiopool.Pool(Thing, max_idle=0, loop_bound=loop_bound)
            newer.put(newer.get())
            assert recorder.calls[12:] == ["created", "got", "putting", "not kept"]
        finally:
            observe(None)
        use(pool)
        use(newer)
        assert len(recorder.calls) == 16

    asyncio.run(main())


@pytest.mark.parametrize("loop_bound", [False, True])
def test_what_exceeds_max_idle_after_an_observation_is_rejected(aiopool, loop_bound):
    observe = aiopool._core.observation.observe

    async def main():
        pool = aiopool.Pool(Thing, max_idle=1, loop_bound=loop_bound)
        pool.put(Thing())
        observe(Recorder())
        observe(None)
        for _ in range(3):
            pool.put(Thing())
        assert (pool.stats().idle, pool.stats().over_max_idle) == (1, 3)

    asyncio.run(main())
