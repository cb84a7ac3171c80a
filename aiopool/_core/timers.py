"""One timer for each loop, for whatever is due next; none while nothing is.

It is a timer on the loop and not a thread, because a process with a thread that its user did not start can no longer
fork without a warning. Each loop has its own, so that none depends on another: the first that fires does the work, and
the others find nothing to do. The trade-off: where no loop is running, work waits for the next call into the package.

What may become due registers here once, as two functions. So this module knows neither cleanup nor freeing.

A loop may have a clock of its own: trio's `MockClock` jumps to the next timer, and so do test loops with virtual time.
Such a loop gets no timer, or an idle pool would move its clock. A loop that hides it well is noticed when a timer
fires early, and gets none from then on.
"""

from collections.abc import Callable
from math import inf
from time import monotonic
from typing import NamedTuple

from .loops import LiveLoop
from .processor import Processor, came_to_loop, live_loops

LATE = 1.0
"""How late a timer of a running loop may be, in seconds."""


class Duty(NamedTuple):
    """Something that becomes due. Times are in seconds of time.monotonic()."""

    due: Callable[[], float]
    run: Callable[[], None]


_duties: list[Duty] = []


def add(due: Callable[[], float], run: Callable[[], None]) -> None:
    """`run` is to be called at the time that `due` tells; infinity: never, as things are."""
    _duties.append(Duty(due, run))


def next_due() -> float:
    """When the next duty is due; infinity: none is."""
    return min([duty.due() for duty in _duties])


def run_due() -> None:
    """Do what is due by now."""
    for duty in _duties:
        if duty.due() <= monotonic():
            duty.run()


def watch(due: float, processor: Processor | None) -> None:
    """Something is due at `due`, says the code that runs as `processor`: wake its loop then, if not earlier."""
    if processor is None:
        # Off-loop there is nothing to set a timer on. One loop is enough: it sets the timer for all that is due.
        for other, _ in live_loops():
            if wake_by(due, other):
                return
    else:
        wake_by(due, processor)


def wake_by(due: float, processor: Processor) -> bool:
    """Wake the loop of `processor` at `due`, if not earlier; from any thread. `False`: it cannot be woken."""
    loop = processor.loop
    if loop is None or not loop.keeps_real_time():
        return False
    # A time that has passed without a wake is not believed.
    if due >= processor.wakes_at > monotonic() - LATE:
        return True
    try:
        # Before the call: the loop may have set the timer before it returns.
        processor.wakes_at, before = due, processor.wakes_at
        if _adjust_soon(processor, loop):
            return True
        processor.wakes_at = before
    except BaseException:
        processor.wakes_at = inf  # perhaps none was posted, so let the next caller do it
        raise
    return False


def _came_to_loop(processor: Processor) -> None:
    """What another loop was to wake for may be due on a loop that is new."""
    due = next_due()
    if due < inf:
        wake_by(due, processor)


def adjust_all() -> None:
    """What was due may be due no more: let each loop set its timer anew, or cancel it."""
    for processor, loop in live_loops():
        if processor.wakes_at < inf:
            _adjust_soon(processor, loop)


def _adjust_soon(processor: Processor, loop: LiveLoop) -> bool:
    """Have `loop` look at its timer soon. `False`: it is not running."""
    adjusting = _Adjusting(processor, loop)
    # Before the call: the loop may have run it to its end before that returns.
    adjusting.waiting = True
    posted = loop.call_soon(adjusting)
    if not posted:
        adjusting.waiting = False
    return posted


class _Adjusting:
    """Sets a loop's timer anew. Where an exception comes in between, the processor is as one without a timer."""

    __slots__ = ("_loop", "_processor", "waiting")

    def __init__(self, processor: Processor, loop: LiveLoop) -> None:
        self._processor = processor
        self._loop = loop
        #: whether its loop is still to run it to its end
        self.waiting = False

    def __call__(self) -> None:
        _adjust(self._processor, self._loop)
        self.waiting = False

    def __del__(self) -> None:
        if getattr(self, "waiting", False) and self._processor.loop is self._loop:
            self._processor.wakes_at = inf
            # Dropped by a loop that ended before it had its timer: as with the timer, a context may outlive it.
            self._processor.park()


def _adjust(processor: Processor, loop: LiveLoop) -> None:
    """On the loop: have the one timer fire when the next duty is due."""
    if processor.loop is not loop:
        return  # the thread runs another loop by now
    # Before looking: what becomes due from here on, in another thread, must not believe in the timer there was.
    processor.wakes_at = inf
    due = next_due()
    timer: _Timer | None = processor.timer
    if timer is not None and timer.due <= due < inf:
        processor.wakes_at = timer.due  # when it fires it looks again
        return
    if timer is not None:
        processor.timer = None
        timer.cancel()
    processor.wakes_at = due
    if due < inf:
        processor.timer = _Timer(processor, loop, due)


class _Timer:
    """Looks at what is due when its time has come.

    A loop that ends first drops its timers, and this one hears of that by its finalizer. Then the processor is parked:
    a context that outlives the loop would go on pinning it, and the next loop would get no timer.
    """

    __slots__ = ("_cancel", "_loop", "_processor", "_waiting", "due")

    def __init__(self, processor: Processor, loop: LiveLoop, due: float) -> None:
        self.due = due
        self._processor = processor
        self._loop = loop
        self._waiting = True
        self._cancel = loop.call_later(max(0.0, due - monotonic()), _Firing(self))

    def cancel(self) -> None:
        """Do not fire. On the loop."""
        self._waiting = False
        self._cancel()

    def fire(self) -> None:
        """On the loop: the time has come."""
        processor = self._processor
        # Loops round to milliseconds. One that is wrong by more has a clock of its own, and would fire for ever.
        keeps_time = self.due - monotonic() < 0.1
        try:
            if keeps_time:
                run_due()
        finally:
            # Also when a signal handler raised in there. If one raises here, the loop lets go of a timer that waits.
            processor.timer = None
            if keeps_time:
                # Soon, and not now: what was due may have given the loop something to do that ends what is due next.
                _adjust_soon(processor, self._loop)
            self._waiting = False

    def dropped(self) -> None:
        """The loop let go of this timer."""
        processor = self._processor
        if self._waiting and processor.loop is self._loop and processor.timer in (self, None):
            processor.timer = None
            processor.wakes_at = inf
            processor.park()


class _Firing:
    """What the loop holds of a timer, so that the timer hears when the loop drops it."""

    __slots__ = ("_timer",)

    def __init__(self, timer: _Timer) -> None:
        self._timer = timer

    def __call__(self) -> None:
        self._timer.fire()

    def __del__(self) -> None:
        timer = getattr(self, "_timer", None)  # not there if an exception broke it off in the making
        if timer is not None:
            timer.dropped()


came_to_loop.append(_came_to_loop)
