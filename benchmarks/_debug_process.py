"""One process of `debug.py`: prints how many list pairs each operation takes, as JSON.

Some operations of `get_put.py` are repeated here: the compared differences are about a nanosecond, and operations in
another module, imported after `prepare` has run, showed a difference of 6% that does not exist.
"""

import asyncio
import json
import sys
import types
from itertools import repeat
from typing import Any

from _timing import IN_FLIGHT, Candidate, Repeat, measure

KINDS = ["without a debug mode", "never on", "off again", "on"]

SAMPLES = 9
"""Samples of each operation; the median counts."""


def prepare(kind: str) -> None:
    """Make this a process of that kind. Call it before anything imports aiopool."""
    if kind == "without a debug mode":
        nothing: Any = types.ModuleType("aiopool._debug")
        nothing.turn_on_when_asked = lambda: None
        sys.modules["aiopool._debug"] = nothing
        return
    from aiopool import _debug

    if kind != "never on":
        _debug.turn_on()
    if kind == "off again":
        _debug.turn_off()
    if _debug.is_on() != (kind == "on"):
        sys.exit("AIOPOOL_DEBUG is set: the debug mode is on")


async def list_pair(n: int) -> None:
    items = [object()]
    for _ in repeat(None, n):
        obj = items.pop()
        items.append(obj)


async def get_put(n: int) -> None:
    from aiopool import Pool

    pool = Pool(object)
    for _ in repeat(None, n):
        obj = pool.get()
        pool.put(obj)


async def many_in_flight(n: int) -> None:
    from aiopool import Pool

    pool = Pool(object)
    for _ in repeat(None, n):
        for obj in [pool.get() for _ in range(IN_FLIGHT)]:
            pool.put(obj)


async def borrow(n: int) -> None:
    from aiopool import Pool

    pool = Pool(object)
    for _ in repeat(None, n):
        with pool.borrow():
            pass


async def async_get_put(n: int) -> None:
    from aiopool import AsyncPool

    pool = AsyncPool(object)
    for _ in repeat(None, n):
        obj = await pool.get()
        await pool.put(obj)


OPERATIONS: dict[str, Repeat] = {
    "get + put": get_put,
    f"{IN_FLIGHT} in flight": many_in_flight,
    "borrow": borrow,
    "AsyncPool": async_get_put,
}


def main(kind: str) -> None:
    prepare(kind)
    base = Candidate("", list_pair)
    operations = [Candidate(name, operation) for name, operation in OPERATIONS.items()]
    results = asyncio.run(measure([base, *operations], SAMPLES))
    print(json.dumps({name: results.ratio(name, base.name).median for name in OPERATIONS}))


if __name__ == "__main__":
    main(sys.argv[1])
