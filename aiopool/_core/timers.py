"""One timer for each loop, which fires when the next duty is due. A loop has no timer while nothing is due.

The package sets timers on loops and starts no thread, because a process with a thread that its user did not start
can no longer fork without a warning. Each loop has a timer of its own, so that no loop depends on another: the first
timer that fires does the work, and the others find nothing to do. The trade-off: if no loop is running, work waits for
the next call into the package.

Cleanup and freeing register their duties here, each as two functions, so this module does not import them.

A loop may have its own clock: trio's `MockClock` jumps to the next timer, and so do test loops with virtual time. Such
a loop gets no timer, because an idle pool would move its clock. If the clock cannot be recognized in advance, it is
noticed when a timer fires early, and the loop gets no timer from then on.
"""

import weakref
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import NamedTuple

from .loops import LiveLoop
from .posted import Posted, waits
from .processor import Processor, came_to_loop, live_loops

LATE = 1.0
"""How late a timer of a running loop may be, in seconds."""


class Duty(NamedTuple):
    """Work that becomes due. Times are in seconds of time.monotonic()."""

    due: Callable[[], float]
    run: Callable[[], None]


_duties: list[Duty] = []


def add(due: Callable[[], float], run: Callable[[], None]) -> None:
    """Have `run` called at the time that `due` returns; infinity means that nothing is due at present."""
    _duties.append(Duty(due, run))


def next_due() -> float:
    """When the next duty is due; infinity if none is."""
    return min([duty.due() for duty in _duties])


def run_due() -> None:
    """Run the duties that are due by now."""
    for duty in _duties:
        if duty.due() <= monotonic():
            duty.run()


def watch(due: float, processor: Processor | None) -> None:
    """Wake the loop of `processor` at `due` or earlier; any loop, if `processor` is `None`."""
    if processor is None:
        # Off-loop there is nothing to set a timer on. One loop is enough, because its timer serves all duties.
        for other, _ in live_loops():
            if wake_by(due, other):
                return
    else:
        wake_by(due, processor)


def wake_by(due: float, processor: Processor) -> bool:
    """Wake the loop of `processor` at `due` or earlier. Thread-safe. Returns `False` if it cannot be woken."""
    loop = processor.loop
    if loop is None or not loop.keeps_real_time():
        return False
    # If `wakes_at` has passed without a wake, ignore it.
    if due >= processor.wakes_at > monotonic() - LATE:
        return True
    try:
        # Before the call, because the loop may set the timer before `_adjust_soon` returns.
        processor.wakes_at, before = due, processor.wakes_at
        if _adjust_soon(processor, loop):
            return True
        processor.wakes_at = before
    except BaseException:
        processor.wakes_at = inf  # perhaps nothing was posted, so let the next caller do it
        raise
    return False


def _came_to_loop(processor: Processor) -> None:
    """Set a timer on a new loop too, because a loop that already has one may be blocked or about to end."""
    due = next_due()
    if due < inf:
        wake_by(due, processor)


def adjust_all() -> None:
    """After a duty was done: have each loop with a timer set it again, or cancel it."""
    for processor, loop in live_loops():
        if processor.wakes_at < inf:
            _adjust_soon(processor, loop)


def _adjust_soon(processor: Processor, loop: LiveLoop) -> bool:
    """Have `loop` adjust its timer soon. Returns `False` if it is not running."""
    if waits(processor.adjusting, loop):
        return True
    adjusting = _Adjusting(processor, loop)
    processor.adjusting = weakref.ref(adjusting)
    return adjusting.post()


class _Adjusting(Posted):
    """Adjusts a loop's timer. If an exception interrupts this, the processor counts as having no timer."""

    __slots__ = ("_processor",)

    def __init__(self, processor: Processor, loop: LiveLoop) -> None:
        super().__init__(loop)
        self._processor = processor

    def run(self) -> None:
        _adjust(self._processor, self.loop)

    def dropped(self) -> None:
        if self._processor.loop is self.loop:
            self._processor.wakes_at = inf
            # The loop ended before its timer was set. As in `_Timer`, a context may outlive it.
            self._processor.park()


def _adjust(processor: Processor, loop: LiveLoop) -> None:
    """Have the loop's one timer fire when the next duty is due. Call on the loop."""
    if processor.loop is not loop:
        return  # the thread runs another loop by now
    # Before the check: if another thread makes work due from here on, it must not rely on the old timer.
    processor.wakes_at = inf
    due = next_due()
    timer: _Timer | None = processor.timer
    if timer is not None and timer.due <= due < inf:
        processor.wakes_at = timer.due  # it is adjusted again when it fires
        return
    if timer is not None:
        processor.timer = None
        timer.cancel()
    processor.wakes_at = due
    if due < inf:
        processor.timer = _Timer(processor, loop, due)


class _Timer:
    """Runs the duties that are due when it fires.

    A loop that ends first drops its timers, which `dropped` notices. Then the processor is parked: otherwise a context
    that outlives the loop would still pin it, and the next loop would get no timer.
    """

    __slots__ = ("_cancel", "_loop", "_processor", "_waiting", "due")

    def __init__(self, processor: Processor, loop: LiveLoop, due: float) -> None:
        self.due = due
        self._processor = processor
        self._loop = loop
        self._waiting = True
        self._cancel = loop.call_later(max(0.0, due - monotonic()), _Firing(self))

    def cancel(self) -> None:
        """Cancel the timer. Call on the loop."""
        self._waiting = False
        self._cancel()

    def fire(self) -> None:
        """Run what is due. Called by the loop."""
        processor = self._processor
        # Loops round to milliseconds. A loop that is wrong by more has its own clock, on which a timer would fire again
        # and again.
        keeps_time = self.due - monotonic() < 0.1
        try:
            if keeps_time:
                run_due()
        finally:
            # Also if a signal handler raised above. If one raises here, the loop drops this timer while it is still
            # marked as waiting, and `dropped` does this.
            processor.timer = None
            if keeps_time:
                # Soon, not now: the duties may have posted work to the loop that completes the next duty.
                _adjust_soon(processor, self._loop)
            self._waiting = False

    def dropped(self) -> None:
        """Called when the loop has dropped this timer."""
        processor = self._processor
        if self._waiting and processor.loop is self._loop and processor.timer in (self, None):
            processor.timer = None
            processor.wakes_at = inf
            processor.park()


class _Firing:
    """The callback that the loop holds, whose finalizer tells the timer when the loop drops it."""

    __slots__ = ("_timer",)

    def __init__(self, timer: _Timer) -> None:
        self._timer = timer

    def __call__(self) -> None:
        self._timer.fire()

    def __del__(self) -> None:
        timer = getattr(self, "_timer", None)  # missing if an exception interrupted __init__
        if timer is not None:
            timer.dropped()


came_to_loop.append(_came_to_loop)
