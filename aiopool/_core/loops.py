"""The event loop that runs on this thread, behind one interface for asyncio, uvloop and trio.

The package needs four things from a loop: run a callback soon, from any thread; run a callback after a delay; keep an
object alive until the loop ends; and tell whether it is running. With asyncio and uvloop these are methods of the loop;
with trio they take a token and a system task. The two classes here give both the same interface.

They refer to the loop weakly, because a closed loop that stays in memory would never emit its `ResourceWarning`. They
return `False` instead of raising when the loop has ended, because a loop may end between any check and the next line,
and every caller reacts in the same way: it tries another loop.

The caller may be a finalizer, which can run in the middle of the loop's own code, for example while asyncio compares
two timers to insert one into its heap. A timer added at that moment breaks the heap, and `call_later` raises in
unrelated code. So this module touches a loop only through the call that every loop offers to signal handlers and other
threads. Callbacks that it posts in this way set timers and spawn tasks.

A fork copies a running loop into a child that never runs it, although the copy still says `is_running()`. So each
`LiveLoop` belongs to the process that created it.
"""

import asyncio
import contextvars
import os
import sys
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

Callback = Callable[[], object]

TRIO = "trio.lowlevel"

# Looked up once, because every pin off the fast path makes this call.
get_running_loop = asyncio._get_running_loop

A_CENTURY = 100 * 365 * 86_400.0
"""In seconds. Longer than any loop runs, and as long as uvloop can wait."""


class LiveLoop(Protocol):
    """A loop that was running when this was created."""

    @property
    def ends_async_generators_last(self) -> bool:
        """Whether the loop drops the objects it holds before it shuts down its async generators."""
        ...

    @property
    def ref(self) -> "weakref.ref[Any] | None":
        """A weak reference to the loop, if it is one that `asyncio.get_running_loop()` returns."""
        ...

    def is_loop(self, running: object) -> bool:
        """Whether this is the loop `running`, a result of `running_loop`."""
        ...

    def is_running(self) -> bool:
        """Whether the loop runs callbacks in this process. Thread-safe."""
        ...

    def keeps_real_time(self) -> bool:
        """Whether a timer of one second fires after one second. It may not on a loop with its own clock."""
        ...

    def call_soon(self, callback: Callback) -> bool:
        """Call `callback` on the loop's thread. Thread-safe. Returns `False` if the loop is not running."""
        ...

    def call_later(self, seconds: float, callback: Callback) -> Callback:
        """Call `callback` after `seconds`. Calling the returned function first cancels this.

        Use both only in a callback of the loop. A loop that ends first drops `callback`.
        """
        ...

    def hold(self, thing: object) -> None:
        """Keep `thing` alive until the loop ends. Thread-safe. Does nothing if the loop has ended."""
        ...


class AsyncioLoop:
    """A loop with asyncio's interface: asyncio's own, uvloop's or winloop's."""

    __slots__ = ("_forks", "ref")

    ends_async_generators_last = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ref = weakref.ref(loop)
        self._forks = _forks

    def is_loop(self, running: object) -> bool:
        return self.ref() is running

    def is_running(self) -> bool:
        loop = self.ref()
        return loop is not None and self._forks == _forks and loop.is_running()

    def keeps_real_time(self) -> bool:
        loop = self.ref()
        if not isinstance(loop, asyncio.BaseEventLoop):
            return True
        return type(loop).time is asyncio.BaseEventLoop.time and "time" not in vars(loop)

    def call_soon(self, callback: Callback) -> bool:
        loop = self.ref()
        if loop is None or not self.is_running():
            return False
        try:
            loop.call_soon_threadsafe(callback, context=_no_context())
        except RuntimeError:  # it was closed after the check
            return False
        return True

    def call_later(self, seconds: float, callback: Callback) -> Callback:
        loop = self.ref()
        if loop is None:
            return _nothing
        # Only the loop holds the handle, so that the callback is freed when the loop drops it.
        handle = weakref.ref(loop.call_later(seconds, callback, context=_no_context()))
        return partial(_cancel, handle)

    def hold(self, thing: object) -> None:
        self.call_soon(partial(self._hold, thing))

    def _hold(self, thing: object) -> None:
        loop = self.ref()
        if loop is None:
            return
        if self.keeps_real_time():
            # A closed loop drops its timers. This one is due so late that it never fires.
            self.call_later(A_CENTURY, partial(self._hold, thing))
        else:
            # The loop's own clock may jump to any timer. Such a loop drops `thing` when it is collected.
            vars(loop).setdefault("_aiopool_held", []).append(thing)


class TrioLoop:
    """One run of trio, identified by its token."""

    __slots__ = ("_forks", "_real_time", "_token")

    ref = None

    ends_async_generators_last = True

    def __init__(self, token: Any) -> None:
        self._token = weakref.ref(token)
        self._forks = _forks
        self._real_time = _waits_a_minute_for_a_minute()

    def is_loop(self, running: object) -> bool:
        return self._token() is running

    def is_running(self) -> bool:
        # A run that has ended drops its token. If the token outlives the run, call_soon returns False.
        return self._token() is not None and self._forks == _forks

    def keeps_real_time(self) -> bool:
        return self._real_time

    def call_soon(self, callback: Callback) -> bool:
        token = self._token()
        if token is None or not self.is_running():
            return False
        import trio

        try:
            token.run_sync_soon(callback)
        except trio.RunFinishedError:
            return False
        return True

    def call_later(self, seconds: float, callback: Callback) -> Callback:
        import trio

        scope = trio.CancelScope()

        async def sleep_then_call() -> None:
            with scope:
                await trio.sleep(seconds)
                callback()

        self._spawn(sleep_then_call)
        return scope.cancel

    def hold(self, thing: object) -> None:
        import trio

        async def hold_it(thing: object) -> None:
            await trio.sleep_forever()

        self.call_soon(partial(self._spawn, hold_it, thing))

    def _spawn(self, task: Callable[..., Any], *args: object) -> None:
        import trio

        try:
            trio.lowlevel.spawn_system_task(task, *args, name="aiopool", context=_no_context())
        except RuntimeError:
            pass  # the run is ending, and its system nursery accepts no more tasks


def _cancel(handle: "weakref.ref[asyncio.TimerHandle]") -> None:
    timer = handle()
    if timer is not None:
        timer.cancel()


def _waits_a_minute_for_a_minute() -> bool:
    """Whether the clock of the running trio is a real one. A `trio.testing.MockClock` stands still, or jumps."""
    import trio

    clock: Any = trio.lowlevel.current_clock()
    seconds: float = clock.deadline_to_sleep_time(clock.current_time() + 60)
    return 59 < seconds < 61 and not isinstance(clock, _mock_clock())


def _mock_clock() -> Any:
    # Its rate may be 1 for now and change later. If the module was never imported, no clock is a MockClock.
    return getattr(sys.modules.get("trio.testing"), "MockClock", ())


def running_loop() -> object | None:
    """The asyncio loop, or trio's token, of the loop that runs on this thread; `None` off-loop.

    trio is looked up in `sys.modules`, because if it was never imported, no trio run can be in progress.
    """
    loop = get_running_loop()
    if loop is not None or TRIO not in sys.modules:
        return loop
    return _trio_token("in_trio_run")


def innermost_loop() -> object | None:
    """Like `running_loop`; but when trio runs as a guest of asyncio, the loop whose code is running."""
    return _trio_token("in_trio_task") or running_loop()


def _trio_token(is_running: str) -> object | None:
    lowlevel = sys.modules.get(TRIO)
    # While another thread is importing it, the module may not have its names yet.
    question = getattr(lowlevel, is_running, None)
    if lowlevel is None or question is None or not question():
        return None
    token: object = lowlevel.current_trio_token()
    return None if token is _left_behind else token


def live_loop(running: object) -> LiveLoop:
    """The `LiveLoop` for `running`, a result of `running_loop`."""
    if isinstance(running, asyncio.AbstractEventLoop):
        return AsyncioLoop(running)
    return TrioLoop(running)


def _no_context() -> contextvars.Context:
    """An empty context, so that a timer that waits a minute does not keep a request's variables alive."""
    return contextvars.Context()


def _nothing() -> None:
    """Cancel a timer that was never set."""


# How many forks separate the first process from this one.
_forks = 0

# The trio run that was in progress in this thread when the process was forked. (asyncio forgets its running loop in
# the child by itself.)
_left_behind: object = None


def _after_fork_in_child() -> None:
    global _forks, _left_behind
    _left_behind = _trio_token("in_trio_run") or _left_behind
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
