"""Finalizers and other threads use a pool in the middle of its operations."""

import asyncio
import contextlib
import contextvars
import gc
import threading
import weakref

import pytest
from loops import in_threads
from shared import Thing


class UsesThePool:
    """Uses a pool in every way in its finalizer."""

    def __init__(self, pool, log):
        self.pool, self.log = pool, log

    def __del__(self):
        pool = self.pool() if isinstance(self.pool, weakref.ref) else self.pool
        if pool is None:
            self.log.append("gone")
            return
        taken = pool.get()
        for _ in range(6):
            pool.put(Thing())
        with pool.borrow():
            pass
        pool.stats()
        for _ in range(3):
            pool.get()
        self.log.append(taken)


@pytest.mark.parametrize("on_loop", [True, False], ids=["loop", "off-loop"])
@pytest.mark.parametrize("strong", [True, False], ids=["strong", "weak"])
@pytest.mark.parametrize("how", ["cleanup", "clear", "dropped", "rotated", "set aside"])
def test_finalizers_may_use_the_pool_that_drops_them(aiopool, how, strong, on_loop):
    pool = aiopool.Pool()
    log = []

    async def main():
        nonlocal pool
        for _ in range(20):
            pool.put(UsesThePool(pool if strong else weakref.ref(pool), log))
        if how == "cleanup":
            aiopool.cleanup()
            aiopool.cleanup()
        elif how == "clear":
            pool.clear()
        elif how == "rotated":
            pool._store.rotate()
            pool._store.rotate()
        elif how == "set aside":
            pool._store.set_aside()
        pool = None
        await asyncio.sleep(0.01)
        gc.collect()
        aiopool.cleanup()
        aiopool.cleanup()
        await asyncio.sleep(0.01)

    if on_loop:
        asyncio.run(main())
    else:
        asyncio.run(_in_a_thread(main))
    gc.collect()
    assert len(log) == 20


async def _in_a_thread(main):
    await asyncio.to_thread(contextvars.Context().run, _run_off_loop, main)


def _run_off_loop(main):
    """Run a coroutine that only sleeps, on a thread without a loop."""

    async def no_sleep(seconds):
        pass

    coroutine = main()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", no_sleep)
        with contextlib.suppress(StopIteration):
            coroutine.send(None)


def test_loops_at_work_amid_steals_and_cleanup_cycles(aiopool):
    """A short version of a stress test that runs for hours."""
    pool = aiopool.Pool(Thing)
    stop = threading.Event()
    errors = []

    async def work():
        me = threading.get_ident()
        while not stop.is_set():
            held = [pool.get() for _ in range(3)]
            for thing in held:
                if thing.held:
                    errors.append("in two hands")
                thing.held = (me,)
            for thing in held:
                if thing.held != (me,):
                    errors.append("in two hands")
                thing.held = ()
                pool.put(thing)
            await asyncio.sleep(0)

    def clean_up():
        while not stop.is_set():
            aiopool.cleanup()
            pool.clear()
            pool.stats()

    timer = threading.Timer(0.6, stop.set)
    timer.start()
    try:
        in_threads([lambda: asyncio.run(work())] * 3 + [clean_up])
    finally:
        stop.set()
        timer.join()
    assert errors == []
