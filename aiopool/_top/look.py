"""The script that runs in the inspected process.

It stops that process's loop, so it is compiled in advance, imports only modules that are imported there anyway, and
stops when its time is up. It waits for no lock, because the interrupted main thread may hold any of them. It writes its
answer to a file with a temporary name, and renames that when it is complete.
"""

import marshal
import os
import sys
from time import perf_counter

TYPE_CHECKING = False  # type checkers recognize this name; `typing` may not be imported in that process
if TYPE_CHECKING:
    from typing import Any


def look(start: int, budget: float, file: str) -> None:
    """Write to `file` the statistics of pools, from number `start` on, as many as `budget` seconds allow."""
    began = perf_counter()
    seen: dict[str, object]
    try:
        seen = _see(start, began + budget)
    except Exception as error:  # otherwise that process would print it
        seen = {"error": f"{type(error).__name__}: {error}"}
    seen["seconds"] = perf_counter() - began
    part = os.open(file + ".part", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(part, marshal.dumps(seen))
    finally:
        os.close(part)
    os.rename(file + ".part", file)


def _see(start: int, deadline: float) -> "dict[str, Any]":
    aiopool = sys.modules.get("aiopool")
    if aiopool is None:
        return {"no aiopool": True}
    pools = aiopool.pools()
    found = []
    for pool in pools[start:]:
        found.append((id(pool), type(pool).__name__, _stats(pool)))
        if perf_counter() >= deadline:
            break
    processors = sys.modules["aiopool._core.processor"].processors()
    return {
        "pools": found,
        "left": len(pools) - start - len(found),
        "implementation": aiopool.implementation,
        "processors": [(each.id, each.thread_id, _loop(each)) for each in processors],
    }


def _loop(processor: "Any") -> "str | None":
    """The name of the loop that `processor` runs; `None` if it runs none."""
    loop = processor.loop
    if loop is None or not loop.is_running():
        return None
    running = loop.ref and loop.ref()
    return "trio" if running is None else str(type(running).__module__.partition(".")[0])


def _stats(pool: "Any") -> "Any":
    """The stats of `pool`, without size classes that were never used: those would be most of the data."""
    return _plain(getattr(pool, "_stats_of_used", pool.stats)())


def _plain(value: "Any") -> "Any":
    """`value` in types that marshal can write."""
    fields = getattr(value, "_fields", None)
    if fields is not None:
        return {name: _plain(getattr(value, name)) for name in fields}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
