"""When a cleanup cycle happens.

A cycle makes each store's primary shards its victim and retires the old victim. It is started by:

- the interpreter's own full collection;
- `idle_timeout` seconds with idle objects and no cycle;
- memory pressure;
- `cleanup()`.

No lock is needed: a cycle swaps references, and each store ensures that overlapping cycles retire nothing twice. Two
overlapping cycles act like two in a row: objects that were idle before both are retired at once.
"""

import os
from collections.abc import Iterable
from math import inf
from time import monotonic

from . import freeing, gc_clock, timers
from .pressure import memory_pressure
from .processor import Processor, running_processor
from .registry import CollectableStore, all_stores


def cleanup() -> None:
    """Run one cleanup cycle over all pools now: retire the objects that have been idle since before the last cycle.

    The cost does not depend on the number of idle objects. Running loops free them in slices of a millisecond; if no
    loop is running, this call frees them. Thread-safe.

    >>> pool.put(bytearray(10)); aiopool.cleanup(); pool.stats().idle
    1
    >>> aiopool.cleanup(); pool.stats().idle
    0
    """
    _cycle(all_stores())


def _cycle(stores: Iterable[CollectableStore]) -> None:
    """One cleanup cycle. It touches no object and no shard, so gets and puts need not stop for it."""
    for store in stores:
        freeing.retire(store.rotate())
    freeing.free_queued()


def _idle_due() -> float:
    return min((store.idle_due() for store in all_stores()), default=inf)


def _with_pressure(idle_due: float) -> float:
    """When to check next, given that idle objects are due at `idle_due`."""
    return min(idle_due, memory_pressure.due()) if idle_due < inf else inf


def _due() -> float:
    return _with_pressure(_idle_due())


def _run_due() -> None:
    """Run a cycle over the stores whose `idle_timeout` has passed without one; over all stores if memory is short."""
    now = inf if memory_pressure.is_felt() else monotonic()
    due = [store for store in all_stores() if store.idle_due() <= now]
    _cycle(due)
    for store in due:
        freeing.retire(store.forget_empty())


def _look_at_pressure() -> None:
    """After a garbage collection: check for memory pressure, because this program may have no loop, or no timer."""
    if memory_pressure.is_felt():
        cleanup()


def watch(store: CollectableStore, processor: Processor | None) -> None:
    """Schedule cleanup for the idle deadline of `store`, for the code that runs as `processor`.

    Called on a store's slow path, whenever it created a shard or its thread runs a new loop.
    """
    gc_clock.listen()
    memory_pressure.begin()
    # Look the processor up again: this context may have outlived its loop, and the thread runs another one by now.
    timers.watch(_with_pressure(store.idle_due()), None if processor is None else running_processor())


def check_time(store: CollectableStore) -> None:
    """Off-loop, where perhaps no timer is set: run everything that is due, if `store` is due."""
    if monotonic() >= store.idle_due():
        timers.run_due()


def emptied(stores: Iterable[CollectableStore]) -> None:
    """After `stores` were emptied on purpose: free what they retired. The slice that does so adjusts the timers."""
    for store in stores:
        freeing.retire(store.forget_empty())
    freeing.free_queued()


def _after_fork_in_child() -> None:
    for store in all_stores():
        store.renew_locks()


timers.add(_due, _run_due)
gc_clock.on_full.append(cleanup)
gc_clock.on_partial.append(_look_at_pressure)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
