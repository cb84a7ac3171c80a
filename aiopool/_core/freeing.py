"""How retired objects are freed without stopping a loop.

Freeing a million objects stops a thread for tens of milliseconds. So retired objects are queued, and a live loop frees
them in slices between its other callbacks. If no loop is running, they are freed at once, because no loop has to wait.

No thread owns the work. Any thread may take from the queue, each step is one C call, and posting a slice to a loop does
not stop others from freeing. So a loop that does not get its turn, because it is blocked, was stopped with the slice in
its queue, or raised halfway, does not hold up the freeing. After `PATIENCE` seconds the timer of any other loop takes
over, and so does any thread that retires objects or runs a garbage collection.

The trade-off: two loops may free at the same time. This costs each of them slices of a millisecond, and nothing else.
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic, perf_counter

from . import gc_clock, timers
from .loops import LiveLoop
from .posted import Posted, waits
from .processor import Processor, live_loops
from .registry import Retired

SLICE = 0.001
"""The longest time that freeing keeps a loop from its other callbacks, in seconds, except as in `SHARE`."""

SHARE = 0.05
"""The part of its time that a loop may spend on freeing, if its other callbacks take so long that this is more than a
`SLICE` in each turn. Otherwise the loop could free less than is retired meanwhile, and memory would grow."""

PATIENCE = 0.02
"""How long a loop may take to run a posted slice before others take over, in seconds."""

_queue: deque[Retired] = deque()

# When objects were last freed, or a slice was posted, in seconds of time.monotonic().
_last_progress = -inf


def retire(retired: Iterable[Retired]) -> None:
    """Queue `retired`, which is no longer in any store, and which no thread uses any more."""
    _queue.extend(retired)


def free_queued() -> None:
    """Have a live loop free the queue in slices; if there is none, free it here and now."""
    if not _queue:
        return
    loops = live_loops()  # the running loop first: objects are best freed on the thread that used them
    for index, (processor, loop) in enumerate(loops):
        if _post_slice(processor, loop):
            for other, _ in loops[index + 1 :]:
                timers.wake_by(monotonic() + PATIENCE, other)
            return
    free_until(inf)


def _post_slice(processor: Processor, loop: LiveLoop) -> bool:
    """Have `loop` free a slice soon. Returns `False` if it is not running."""
    global _last_progress
    if waits(processor.slice, loop):
        return True
    slice = _Slice(loop)
    processor.slice = weakref.ref(slice)
    _last_progress = monotonic()  # before the post, because the slice may run before `post` returns
    return slice.post()


def free_until(deadline: float) -> bool:
    """Free the queue until `deadline`, in seconds of time.perf_counter(). Returns `True` if nothing is left."""
    global _last_progress
    while True:
        _last_progress = monotonic()
        try:
            retired = _queue.popleft()
        except IndexError:
            return True
        if not free_each(retired.free_newest, deadline):
            _queue.append(retired)
            return False
        # Only the owner may touch private objects. They are freed with the shard, once the owner drops it too.


def free_each(free_one: Callable[[], bool], deadline: float) -> bool:
    """Call `free_one` until it returns `False` or until `deadline`. Returns `True` if nothing is left."""
    while free_one():
        if perf_counter() >= deadline:
            return False
    return True


class Slice(Posted):
    """Frees for a short time. Subclasses define what."""

    __slots__ = ("_posted",)

    def __init__(self, loop: LiveLoop) -> None:
        super().__init__(loop)
        self._posted = perf_counter()

    def deadline(self) -> float:
        """When the slice that runs now has to end, in seconds of time.perf_counter()."""
        now = perf_counter()
        return now + max(SLICE, SHARE * (now - self._posted))


class _Slice(Slice):
    """Frees on one loop, a slice at a time, until nothing is left. If the loop ends first, others take over."""

    __slots__ = ()

    def run(self) -> None:
        try:
            if free_until(self.deadline()):
                timers.adjust_all()  # no other loop need be ready to take over any more
        finally:
            # Also if a signal handler raised above, because the rest must still be freed. If one raises here, `dropped`
            # does this.
            free_queued()

    def dropped(self) -> None:
        free_queued()


def _overdue_at() -> float:
    return _last_progress + PATIENCE if _queue else inf


def _take_over() -> None:
    """Free or repost the queue if the loop with the posted slice did not run it in time."""
    if _overdue_at() <= monotonic():
        free_queued()


timers.add(_overdue_at, _take_over)
gc_clock.on_stop.append(_take_over)
