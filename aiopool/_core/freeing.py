"""How retired objects are freed without stopping a loop.

Freeing a million objects stops a thread for tens of milliseconds. So what is retired is queued, and a live loop frees
it in slices between its other callbacks. With no loop running no one is kept waiting, and it is freed at once.

Nothing here is anyone's to hold. Any thread may take from the queue, each step is one C call, and a loop that was
given the work is one that may do it, not the only one. So a loop that does not get its turn, because it is blocked,
was stopped with the slice in its queue, or raised in the middle, holds nothing up: after `PATIENCE` the timer of any
other loop takes over, and so does any thread that retires something itself, or runs into a garbage collection.

The trade-off: two loops may free at the same time. That costs each of them slices of a millisecond, and no more.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic, perf_counter

from .._native import native
from . import gc_clock, timers
from .loops import LiveLoop
from .processor import Processor, live_loops, processors
from .registry import Retired

SLICE = 0.001
"""The longest that a loop is kept from its other callbacks, in seconds."""

PATIENCE = 0.02
"""How long a loop that was given the work may take to come back to it, in seconds."""

_queue: deque[Retired] = deque()

# When something was last freed, or given to a loop; in seconds of time.monotonic().
_last_progress = -inf


def retire(retired: Iterable[Retired]) -> None:
    """Queue `retired`, which no store knows any more."""
    _queue.extend(retired)


def free_queued() -> None:
    """Have what is queued freed: by a live loop in slices, else here and at once."""
    if not _queue:
        return
    loops = live_loops()  # the running loop first: objects die best where they lived
    for index, (processor, loop) in enumerate(loops):
        if _post_slice(processor, loop):
            for other, _ in loops[index + 1 :]:
                timers.wake_by(monotonic() + PATIENCE, other)
            return
    free_until(inf)


def _post_slice(processor: Processor, loop: LiveLoop) -> bool:
    """Have `loop` free a slice soon. `False`: it is not running."""
    global _last_progress
    now = monotonic()
    if now - processor.slice_posted < PATIENCE:
        return True  # one is on its way
    try:
        # All of it before the call: the slice may have run before that returns.
        processor.slice_posted = _last_progress = now
        slice = _Slice(processor)
        slice.waiting = True
        posted = loop.call_soon(slice)
        if not posted:
            slice.waiting = False
            processor.slice_posted = -inf  # else the next caller would take it to be on its way
        return posted
    except BaseException:
        processor.slice_posted = -inf  # it was not posted, so let the next caller do it
        raise


def free_until(deadline: float) -> bool:
    """Free what is queued until `deadline`, in seconds of time.perf_counter(). `True`: nothing is left."""
    global _last_progress
    while True:
        _last_progress = monotonic()
        try:
            retired = _queue.popleft()
        except IndexError:
            return True
        if native is not None:
            # No store knows the shard any more; a thread that found it before may still be using it, unreferenced.
            native.quiesce(processors())
        if not free_each(retired.free_newest, deadline):
            _queue.append(retired)
            return False
        # Private objects go with the shard, once the owner lets go of it too: only the owner may touch them.


def free_each(free_one: Callable[[], bool], deadline: float) -> bool:
    """Call `free_one` until it finds nothing, or until `deadline`. `True`: nothing is left."""
    while free_one():
        if perf_counter() >= deadline:
            return False
    return True


class _Slice:
    """Frees on one loop, a slice at a time, until nothing is left.

    A loop that ends with a slice in its queue drops the slice, which hears of that by its finalizer; so it does where
    a signal handler raised before its first line or after its last. Then another takes over.
    """

    __slots__ = ("_processor", "waiting")

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        #: whether its loop is still to run it to its end
        self.waiting = False

    def __call__(self) -> None:
        try:
            if free_until(perf_counter() + SLICE):
                timers.adjust_all()  # no loop need wait for this one any more
        finally:
            # Also when a signal handler raised in there: the rest is still to be freed. If one raises here, the
            # finalizer does it.
            self._processor.slice_posted = -inf
            free_queued()
            self.waiting = False

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # Without a default, one that an exception broke off in the making would raise here.
        if getattr(self, "waiting", False) and not _is_finalizing():
            self._processor.slice_posted = -inf
            free_queued()


def _overdue_at() -> float:
    return _last_progress + PATIENCE if _queue else inf


def _take_over() -> None:
    """The loop that was given the work did not come back to it in time."""
    if _overdue_at() <= monotonic():
        free_queued()


timers.add(_overdue_at, _take_over)
gc_clock.on_stop.append(_take_over)
