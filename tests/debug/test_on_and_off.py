"""Debug mode, switched on and off: it observes older pools and methods too, and costs nothing while off."""

import asyncio
import gc
import re
import subprocess
import sys
import threading
import warnings

import pytest
from children import CHILD_LIMIT
from observed import KINDS, debug_mode, place
from shared import PROGRAMS, Thing


def test_the_fast_paths_find_the_primary_while_it_is_off_and_nothing_while_it_is_on(reference):
    pool = reference.Pool(Thing)
    pool.fill(1)
    store = pool._store
    assert store.fast_get is store.fast_put is store.primary
    reference._debug.turn_on()
    try:
        reference._debug.turn_on()  # a second time does no harm
        reference.cleanup()  # the new primary is not published to the fast paths either
        pool.fill(1)
        newer = reference.Pool(Thing)
        newer.fill(1)
        for each in (store, newer._store):
            assert each.primary
            assert not each.fast_get
            assert not each.fast_put
    finally:
        reference._debug.turn_off()
    for each in (store, newer._store):
        assert each.fast_get is each.fast_put is each.primary


def test_no_method_is_replaced(aiopool):
    before = [dict(vars(cls)) for cls in (aiopool.Pool, aiopool.AsyncPool)]
    aiopool._debug.turn_on()
    assert aiopool._debug.is_on()
    assert [dict(vars(cls)) for cls in (aiopool.Pool, aiopool.AsyncPool)] == before
    aiopool._debug.turn_off()
    assert [dict(vars(cls)) for cls in (aiopool.Pool, aiopool.AsyncPool)] == before
    assert not aiopool._debug.is_on()
    assert aiopool._debug._records.on_gc not in gc.callbacks


def test_a_double_put_by_methods_bound_before_is_found(aiopool):
    pool = aiopool.Pool(Thing)
    get, put = pool.get, pool.put  # bound before the debug mode comes on

    async def main():
        put(get())  # from here on the fast path finds a shard
        with debug_mode(aiopool):
            thing = get()
            put(thing)  # first
            with pytest.raises(ValueError, match="was put already") as caught:
                put(thing)
        return str(caught.value)

    text = asyncio.run(main())
    assert f"put at {place(main, '# first')}, and once more at " in text
    assert f"it was got at {place(main, 'thing = get()')}" in text


@pytest.mark.parametrize("kind", KINDS)
def test_gets_and_puts_by_methods_bound_before_are_observed(aiopool, said, kind):
    pool = aiopool.Pool(kind)
    get, put = pool.get, pool.put  # bound before the debug mode comes on

    async def main():
        put(get())
        with debug_mode(aiopool):
            for _ in range(3):
                put(get())
            pool.clear()
            aiopool._debug._records.sweep()
            assert said.all() == []
            get()  # and gone
            aiopool._debug._records.sweep()

    asyncio.run(main())
    assert f"got at {place(main, '# and gone')}" in said.one()


def test_an_object_got_before_debug_mode_may_be_put_once(aiopool, said):
    pool = aiopool.Pool(Thing)
    held = [pool.get()]
    with debug_mode(aiopool):
        pool.put(held[0])
        with pytest.raises(ValueError, match="it was never got"):  # as far as was seen
            pool.put(held[0])
        pool.get()  # the list refers to it; but it may have come from the pool, so nothing is said
    assert said.all() == []


def test_after_turning_off_everything_works_as_before(aiopool):
    aiopool._debug.turn_on()
    aiopool._debug.turn_off()
    pool = aiopool.Pool(Thing)

    async def main():
        with pool.borrow() as thing:
            pass
        with pool.borrow() as same:
            assert same is thing
        pool.put(same)

    with pytest.raises(ValueError, match="put each object once for each get"):
        asyncio.run(main())
    assert not aiopool._debug._records._records


def test_subclasses_that_override_methods_are_observed(debugging):
    class Counting(debugging.Pool):
        gets = 0

        def get(self):
            Counting.gets += 1
            return super().get()

    pool = Counting(Thing)
    with pool.borrow() as thing:
        pass
    assert Counting.gets == 1
    with pytest.raises(ValueError, match="was put already"):
        pool.put(thing)


def test_many_threads(debugging, said):
    pool = debugging.Pool(lambda: bytearray(10))

    async def work():
        for _ in range(300):
            buffers = [pool.get() for _ in range(3)]
            for buffer in buffers:
                pool.put(buffer)
            del buffers, buffer
            await asyncio.sleep(0)

    threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said.all() == []
    assert not debugging._debug._records.checked_out


# --- as a user sees it ---


def run(child_env, program, *options, arguments=(), **variables):
    done = subprocess.run(
        [sys.executable, *options, "-c", program, *arguments],
        env={**child_env, **variables},
        capture_output=True,
        text=True,
        timeout=CHILD_LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


LOST = (PROGRAMS / "lost_object.py").read_text(encoding="utf-8")


def test_turned_on_by_the_environment(child_env):
    assert run(child_env, LOST) == ""
    said = run(child_env, LOST, AIOPOOL_DEBUG="1")
    line = 1 + LOST.splitlines().index("    pool.get()")
    assert (
        f"<string>:{line}: ResourceWarning: aiopool: collected while it was checked out: bytearray of <aiopool.Pool 'fr"
        in said
    )
    assert said.count("ResourceWarning") == 1


def test_turned_on_by_the_loop(child_env):
    said = run(child_env, LOST, arguments=["debug"])
    assert "ResourceWarning: aiopool: collected while it was checked out" in said
    said = run(child_env, LOST, "-X", "dev", "-W", "error")
    assert "ResourceWarning: aiopool: collected while it was checked out" in said


def test_objects_alive_at_exit_are_not_reported(child_env):
    program = "import aiopool; kept = [aiopool.Pool(kind).get() for kind in (bytearray, set)]"
    assert run(child_env, program, "-W", "error", AIOPOOL_DEBUG="1") == ""


def test_warning_filters_are_respected(child_env):
    assert run(child_env, LOST, "-W", "ignore", AIOPOOL_DEBUG="1") == ""


# --- async pools ---


def test_async_pools_are_observed_too(debugging, said):
    async def main():
        made = debugging.AsyncPool(Thing, reset=lambda thing: None, max_idle=1, name="things")
        first, second = await made.get(), await made.get()
        await made.put(first)  # first
        with pytest.raises(ValueError, match=re.escape(place(main, "# first"))):
            await made.put(first)
        await made.put(second)  # one too many: not kept, and not reported as lost
        async with made.borrow():
            pass
        with pytest.raises(KeyError):
            async with made.borrow():
                raise KeyError
        await made.aclose()
        del first, second
        assert said.all() == []
        lost = debugging.AsyncPool(Thing, name="lost")
        await lost.get()
        gc.collect()
        assert "'lost'" in said.one()

    asyncio.run(main())


def test_an_async_pool_created_before_debug_mode_is_observed(aiopool, said):
    async def main():
        pool = aiopool.AsyncPool(Thing)
        get, put = pool.get, pool.put  # bound before the debug mode comes on
        await put(await get())
        with debug_mode(aiopool):
            thing = await get()
            await put(thing)
            with pytest.raises(ValueError, match="was put already"):
                await put(thing)
            del thing
            async with pool.borrow():
                pass
            assert said.all() == []
            await get()  # and gone
            gc.collect()

    asyncio.run(main())
    assert f"got at {place(main, '# and gone')}" in said.one()


def test_buffers_are_not_observed(debugging, said):
    warnings.simplefilter("ignore", RuntimeWarning)  # in Python, on 3.11
    buffers = debugging.BufferPool()
    view = buffers.acquire(10)
    del view
    buffers.acquire(10)
    assert said.all() == []
