"""Interpreters with a GIL of their own use pools, one after another, side by side, and beside this one."""

import asyncio
import os
import threading

import _interpreters as interpreters

import aiopool

PROGRAM = f"""if True:
    import asyncio, aiopool

    class Circle(aiopool.Pool):
        pass

    async def main():
        pool = aiopool.Pool(bytearray, name="inside")
        others = [aiopool.Pool(list) for _ in range(20)]
        for _ in range(300):
            with pool.borrow() as one, pool.borrow() as two:
                assert one is not two
            async with pool.borrow():
                pass
            for other in others:
                other.put(other.get())
            assert aiopool.current_processor().id == 1
        # What the end of the interpreter finds alive and in cycles.
        circle = Circle()
        circle.itself = circle
        for _ in range(3):
            circle.put([circle, circle.borrow(), aiopool.current_processor()])
        aiopool.cleanup()
        aiopool.pool.kept = circle

    aiopool.pool = Circle()
    asyncio.run(main())
    assert aiopool.implementation == "{aiopool.implementation}"
"""


def run_one():
    try:
        id = interpreters.create()
        try:
            for _ in range(2):
                failure = interpreters.run_string(id, PROGRAM)
                if failure is not None:
                    failures.append(getattr(failure, "errdisplay", failure))
        finally:
            interpreters.destroy(id)
    except BaseException as error:
        failures.append(error)


failures = []
pool = aiopool.Pool()
thing = object()


async def main():
    pool.put(thing)
    run_one()
    run_one()
    threads = [threading.Thread(target=run_one) for _ in range(2)]
    for each in threads:
        each.start()
    for _ in range(20000):
        assert pool.get() is thing
        pool.put(thing)
    for each in threads:
        each.join()
    assert pool.get() is thing
    assert len(aiopool._core.processor.processors()) == 1


asyncio.run(main())
print(*failures, "ok", flush=True)
os._exit(0)  # to see our own doings, not how CPython's shutdown copes with what other interpreters imported
