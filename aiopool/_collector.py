"""When a cleanup cycle happens, and how what it drops is freed without stopping a loop.

A cycle makes each pool's primary shards its victim, and dooms the old victim. It comes with one of three things:

- the interpreter's own full collection, through `gc.callbacks`. It is the best clock there is: it ticks when the
  program makes garbage, which is when memory matters. But it can stand still for hours, be switched off, or be thrown
  out by somebody else's `gc.callbacks.clear()`;
- so each loop that uses a pool also keeps a timer for the earliest `idle_timeout`. It is a timer on the loop and not
  a thread of our own, because a process with a thread that its user did not start can no longer fork without a
  warning. Where no loop is alive, the next off-loop use of a pool looks at the time;
- `cleanup()`.

Freeing a million objects stops a thread for tens of milliseconds. So what is doomed is queued, and one live loop at a
time works the queue off in slices between its other callbacks. With no loop alive nobody is kept waiting, and
it is freed at once.

No lock is waited for here either: who finds a cycle or a drop under way leaves it to the one who is at it.
"""

import atexit
import gc
import os
import sysconfig
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from threading import Lock
from time import monotonic, perf_counter
from typing import Any, Protocol

from ._implementation import native
from ._loops import LiveLoop
from ._processor import Processor, current_processor, processors

SLICE = 0.001
"""The longest that a loop is kept from its other callbacks, in seconds."""


class Collectable(Protocol):
    """What the collector asks of a pool."""

    def rotate(self) -> Iterable["Doomed"]:
        """Make primary the victim; the old victim's shards."""
        ...

    def idle_due(self) -> float:
        """When idle objects call for a cycle, in seconds of time.monotonic(); infinity: nothing is idle."""
        ...

    def renew_locks(self) -> None:
        """In the child of a fork."""

    def set_aside(self) -> Callable[[], Iterable["Doomed"]]:
        """Be as new until the result is called; that returns what came in between."""
        ...


class Doomed(Protocol):
    """What the collector asks of a shard that no pool knows any more, or of what stands for it."""

    def drop_newest(self) -> bool:
        """Let go of one object; `False`: there is none left that the caller should drop."""
        ...


# The registry. Weak, so that a pool that nobody references goes with all it holds; a dict, for its order.
_pools: dict["weakref.ref[Any]", None] = {}


def register(pool: Collectable) -> None:
    """From now on cleanup cycles reach `pool`, until nobody references it."""
    # The callback is one C call: it can run in the middle of anything.
    _pools[weakref.ref(pool, _pools.__delitem__)] = None


def pools() -> list[Any]:
    """The live pools, oldest first. Safe from any thread.

    >>> pool = Pool(bytearray, name="frames")
    >>> pool in aiopool.pools()
    True
    """
    return [pool for ref in list(_pools) if (pool := ref()) is not None]


# --- when ---


class GCClock:
    """Tells from what `gc.callbacks` report when the whole heap has been gone through, on every build.

    - Free-threaded builds know one generation: each collection is a full one, whatever its number.
    - Generational builds count a full collection as generation 2.
    - Incremental builds (3.14.0 to 3.14.4) only ever report generation 1, once an increment, and never 0 in between.
      A hundred increments count as one full collection: as many young collections lie between two full ones
      by the thresholds of the generational collector (10 times 10).

    `gc.collect()` reports generation 2 everywhere.
    """

    INCREMENTS = 100

    def __init__(self, *, every_collection_is_full: bool) -> None:
        self._every = every_collection_is_full
        self._increments = 0

    def is_full(self, generation: int) -> bool:
        """Whether the collection that reports `generation` ends a pass over the whole heap."""
        if self._every or generation == 2:
            self._increments = 0
            return True
        if generation == 0:
            self._increments = 0
            return False
        self._increments += 1
        return self._increments % self.INCREMENTS == 0


_clock = GCClock(every_collection_is_full=bool(sysconfig.get_config_var("Py_GIL_DISABLED")))


def _on_gc(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and _clock.is_full(info["generation"]):
        cycle(pools())


def _listen_to_gc() -> None:
    if _on_gc not in gc.callbacks:
        gc.callbacks.append(_on_gc)


def cleanup() -> None:
    """Run one cleanup cycle now, over all pools: what has been idle since before the cycle before it is dropped.

    Costs the same for any number of idle objects; the dropping is done by live loops in slices of a millisecond, or
    by this call where no loop is alive. Safe from any thread. If a cycle is under way already, this call leaves it
    at that one.

    >>> pool.put(bytearray(10)); aiopool.cleanup(); pool.stats().idle
    1
    >>> aiopool.cleanup(); pool.stats().idle
    0
    """
    cycle(pools())


def watch(pool: Collectable, processor: Processor | None) -> None:
    """See to it that `pool`, which has something idle from now on, is looked at in time.

    Called on a pool's slow path by the code that runs as `processor`, whenever it made a shard or came to a new loop.
    """
    _listen_to_gc()
    if processor is None:
        # Off-loop there is nobody to set a timer on: ask the first loop that is alive.
        for other in processors():
            if other.loop is not None and other.loop.call_soon(partial(_wake_for_all, other)):
                return
    elif processor.wake is None:
        _wake_for_all(processor)
    else:
        _wake_by(pool.idle_due(), processor)


def run_due() -> None:
    """Run a cycle over the pools whose `idle_timeout` has passed without one."""
    now = monotonic()
    cycle([pool for pool in pools() if pool.idle_due() <= now])


def _wake_by(due: float, processor: Processor) -> None:
    """On `processor`'s own thread: wake its loop at `due`, unless it wakes earlier anyway."""
    awake = inf if processor.wake is None else processor.wake
    loop = processor.loop
    if due < awake and loop is not None and loop.call_later(max(0.0, due - monotonic()), _Timer(processor)):
        awake = due
    processor.wake = awake


def _wake_for_all(processor: Processor) -> None:
    _wake_by(min((pool.idle_due() for pool in pools()), default=inf), processor)


class _Timer:
    """Looks at what is due when its time has come.

    A loop that ends first throws its timers away, and this one hears of that by its finalizer. Then the processor is
    parked: a context that outlives the loop would go on pinning it, and nobody would set a timer on the next loop.
    """

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._waiting = True

    def __call__(self) -> None:
        self._waiting = False
        _listen_to_gc()
        run_due()
        self._processor.wake = None
        _wake_for_all(self._processor)

    def __del__(self) -> None:
        if self._waiting:
            self._processor.park()


# --- rotation ---

_cycling = Lock()


def cycle(due: list[Any]) -> None:
    """One cleanup cycle over the pools that are `due`. It touches no object and no shard: no pool need stand still.

    The caller's list keeps the pools alive: were a pool freed here with all its objects, finalizers would run while
    the lock is held.
    """
    lock = _cycling
    if not lock.acquire(blocking=False):
        return
    try:
        for pool in due:
            _doomed.extend(pool.rotate())
    finally:
        lock.release()
    drop()


@contextmanager
def no_cycle() -> Iterator[None]:
    """No cycle comes during the block. Waits for one that is under way: not for the hot path."""
    with _cycling:
        yield


def discard(shards: Iterable[Doomed]) -> None:
    """Have `shards`, which no pool knows any more, dropped."""
    _doomed.extend(shards)
    drop()


# --- dropping ---

_doomed: deque[Doomed] = deque()

# Held by whoever works off the queue: a thread at it, or a slice that waits on a loop for its turn.
_dropping = Lock()


def drop() -> None:
    """Work off the queue of doomed shards: on a live loop if there is one, else here and at once."""
    lock = _dropping
    if not _doomed or not lock.acquire(blocking=False):
        return
    posted = False
    try:
        posted = _post_slice(lock)
        if not posted:
            _drop_until(inf)
    finally:
        if not posted:
            lock.release()
    if not posted:
        # What came after the queue was found empty and before the release was left to us.
        drop()


def _post_slice(lock: Any) -> bool:
    """Hand the queue to a live loop, the running one first: objects die best where they lived. `False`: no taker."""
    own = current_processor()
    for processor in [*([] if own is None else [own]), *processors()]:
        if processor.loop is not None and _Slice(processor.loop, lock).post():
            return True
    return False


def _drop_until(deadline: float) -> bool:
    """Drop what is doomed until `deadline`, in seconds of time.perf_counter(). `True`: nothing is left."""
    while True:
        try:
            shard = _doomed.popleft()
        except IndexError:
            return True
        if native is not None:
            # Nobody finds the shard any more; who found it before may still be using it, without holding it.
            native.quiesce(processors())
        while shard.drop_newest():
            if perf_counter() >= deadline:
                _doomed.append(shard)
                return False
        # Private objects go with the shard, once the owner lets go of it too: only the owner may touch them.


class _Slice:
    """Drops on one loop, a slice at a time, until nothing is left.

    A loop that ends with a slice in its queue throws the slice away, and it hears of that by its finalizer: then the
    rest is passed on.
    """

    def __init__(self, loop: LiveLoop, lock: Any) -> None:
        self._loop = loop
        self._lock = lock
        self._waiting = False

    def post(self) -> bool:
        """Wait for a turn on the loop. `False`: the loop has ended."""
        self._waiting = True  # beforehand: the loop may have called us before call_soon returns
        accepted = False
        try:
            accepted = self._loop.call_soon(self)
        finally:
            if not accepted:
                self._waiting = False
        return accepted

    def __call__(self) -> None:
        if not self._waiting:
            return  # posting failed after all, and the right to drop was given back
        self._waiting = False
        try:
            finished = _drop_until(perf_counter() + SLICE)
        except BaseException:
            self._lock.release()  # the rest waits for the next cycle
            raise
        if finished or not self.post():
            self._pass_on()

    def __del__(self) -> None:
        if self._waiting:
            self._waiting = False
            self._pass_on()

    def _pass_on(self) -> None:
        self._lock.release()
        drop()


def _after_fork_in_child() -> None:
    """Locks that lost threads held would never be released."""
    global _cycling, _dropping
    _cycling = Lock()
    _dropping = Lock()
    for pool in pools():
        pool.renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _stop() -> None:
    """At exit: a collection while the interpreter takes its modules apart must not find half of this one."""
    if _on_gc in gc.callbacks:
        gc.callbacks.remove(_on_gc)


atexit.register(_stop)
_listen_to_gc()
