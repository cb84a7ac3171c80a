"""Interpreters with a GIL of their own use pools: one after another, at the same time, and while this one does."""

import asyncio
import os
import threading

import _interpreters as interpreters
from shared import PROGRAMS

import aiopool

PROGRAM = (PROGRAMS / "in_interpreters" / "uses_pools.py").read_text(encoding="utf-8")
PROGRAM += f'assert aiopool.implementation == "{aiopool.implementation}"'


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
os._exit(0)  # to test aiopool, not how CPython's shutdown handles modules that other interpreters imported
