"""When a cleanup cycle happens.

A cycle makes each store's primary shards its victim, and retires the old victim. One of four things starts it:

- the interpreter's own full collection;
- `idle_timeout` seconds with idle objects and no cycle;
- memory pressure;
- `cleanup()`.

No lock is needed: a cycle swaps references, and each store ensures that two cycles at once retire nothing twice. Two
cycles at once deprive the victim of its second chance, as two in a row do, and nothing else.
"""

import os
from collections.abc import Iterable
from math import inf
from time import monotonic

from . import freeing, gc_clock, timers
from .pressure import memory_pressure
from .processor import Processor, running_processor
from .registry import CollectableStore, pools, stores_of


def cleanup() -> None:
    """Run one cleanup cycle now, over all pools: objects that were idle before the last cycle are retired.

    Costs the same for any number of idle objects; they are freed by live loops in slices of a millisecond, or by this
    call where no loop is running. Safe from any thread.

    >>> pool.put(bytearray(10)); aiopool.cleanup(); pool.stats().idle
    1
    >>> aiopool.cleanup(); pool.stats().idle
    0
    """
    known = pools()
    _cycle(stores_of(known))


def _cycle(stores: list[CollectableStore]) -> None:
    """One cleanup cycle. It touches no object and no shard, so no pool need stand still."""
    for store in stores:
        freeing.retire(store.rotate())
    freeing.free_queued()


def _idle_due() -> float:
    known = pools()
    return min([store.idle_due() for store in stores_of(known)], default=inf)


def _with_pressure(idle_due: float) -> float:
    """When to look next at what is idle until `idle_due`."""
    return min(idle_due, memory_pressure.due()) if idle_due < inf else inf


def _due() -> float:
    return _with_pressure(_idle_due())


def _run_due() -> None:
    """A cycle over the stores whose `idle_timeout` has passed without one; over all, if memory is short."""
    now = inf if memory_pressure.is_felt() else monotonic()
    known = pools()
    due = [store for store in stores_of(known) if store.idle_due() <= now]
    _cycle(due)
    for store in due:
        freeing.retire(store.forget_empty())


def _look_at_pressure() -> None:
    """A collection ended, perhaps in a program without a loop, or without timers."""
    if memory_pressure.is_felt():
        cleanup()


def watch(store: CollectableStore, processor: Processor | None) -> None:
    """`store` has something idle from now on, says the code that runs as `processor`: see that it is looked at in time.

    Called on a store's slow path, whenever it made a shard or came to a new loop.
    """
    gc_clock.listen()
    memory_pressure.begin()
    # Pinned anew: a context that outlived its loop may have come to another one with this thread.
    timers.watch(_with_pressure(store.idle_due()), None if processor is None else running_processor())


def check_time(store: CollectableStore) -> None:
    """Off-loop no timer may be running: do what is due, if anything of `store` is."""
    if monotonic() >= store.idle_due():
        timers.run_due()


def emptied(stores: Iterable[CollectableStore]) -> None:
    """`stores` were emptied on purpose: where nothing is idle any more, no loop needs a timer."""
    for store in stores:
        freeing.retire(store.forget_empty())
    freeing.free_queued()
    if _idle_due() == inf:
        timers.adjust_all()


def _after_fork_in_child() -> None:
    for store in stores_of(pools()):
        store.renew_locks()


timers.add(_due, _run_due)
gc_clock.on_full.append(cleanup)
gc_clock.on_partial.append(_look_at_pressure)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
