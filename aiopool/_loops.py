"""The event loop that runs on this thread, and how to hand it work.

Three things are asked of a loop: to call something soon, from any thread; to call something after a while, from its own
thread; and to hold something until it ends. asyncio and uvloop answer with methods of the loop; trio answers with a
token and a system task. The classes here make one face of that.

They hold the loop weakly: a closed loop that stays in memory would keep its own `ResourceWarning` from being seen. And
they answer `False` instead of raising when the loop has ended, because a loop may end between any question and the
next, and every caller then does the same: it turns to another loop.

Whoever asks may be a finalizer, and that can run in the middle of the loop's own code: while asyncio compares two
timers, to find the new one's place on its heap. A timer added there breaks the heap, and `call_later` raises in code
that has nothing to do with us. So nothing here touches the insides of a loop but by the one way that every loop offers
to signal handlers and other threads; timers are set and tasks spawned from there, in a callback of the loop.
"""

import asyncio
import contextvars
import sys
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

Callback = Callable[[], object]

A_DAY = 86_400.0
"""In seconds. Not all loops can wait longer than some days, and none minds waking once in a day."""


class LiveLoop(Protocol):
    """A loop that was running when it was looked at."""

    @property
    def ends_async_generators_last(self) -> bool:
        """Whether the loop shuts down its async generators when it has let go of what it holds, or before."""
        ...

    def is_loop(self, running: object) -> bool:
        """Whether this stands for `running`, as `running_loop` gave it."""
        ...

    def call_soon(self, callback: Callback) -> bool:
        """Call `callback` on the loop's thread; from any thread. `False`: the loop has ended."""
        ...

    def call_later(self, seconds: float, callback: Callback) -> bool:
        """Call `callback` after `seconds`; from any thread. `False`: the loop has ended.

        A loop that ends first lets go of `callback`.
        """
        ...

    def hold(self, thing: object) -> None:
        """Keep `thing` alive until the loop ends; from any thread. Not at all, if it has ended."""
        ...


class AsyncioLoop:
    """A loop with asyncio's interface: asyncio's own, uvloop's, winloop's."""

    __slots__ = ("_loop",)

    ends_async_generators_last = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)

    def is_loop(self, running: object) -> bool:
        return self._loop() is running

    def call_soon(self, callback: Callback) -> bool:
        loop = self._loop()
        if loop is None or not loop.is_running():
            return False
        try:
            loop.call_soon_threadsafe(callback, context=_no_context())
        except RuntimeError:  # closed since the line above
            return False
        return True

    def call_later(self, seconds: float, callback: Callback) -> bool:
        return self.call_soon(partial(self._set_timer, seconds, callback))

    def _set_timer(self, seconds: float, callback: Callback) -> None:
        loop = self._loop()
        if loop is not None:
            loop.call_later(seconds, callback, context=_no_context())

    def hold(self, thing: object) -> None:
        # What a loop throws away when it is closed is its timers.
        self.call_later(A_DAY, partial(self.hold, thing))


class TrioLoop:
    """One run of trio, held by its token."""

    __slots__ = ("_token",)

    ends_async_generators_last = True

    def __init__(self, token: Any) -> None:
        self._token = weakref.ref(token)

    def is_loop(self, running: object) -> bool:
        return self._token() is running

    def call_soon(self, callback: Callback) -> bool:
        token = self._token()
        if token is None:
            return False
        import trio

        try:
            token.run_sync_soon(callback)
        except trio.RunFinishedError:
            return False
        return True

    def call_later(self, seconds: float, callback: Callback) -> bool:
        import trio

        async def sleep_then_call() -> None:
            await trio.sleep(seconds)
            callback()

        return self.call_soon(partial(self._spawn, sleep_then_call))

    def hold(self, thing: object) -> None:
        import trio

        async def hold_it(thing: object) -> None:
            # Not with a timer: a clock that jumps, as trio has one for tests, would jump to it.
            await trio.sleep_forever()

        self.call_soon(partial(self._spawn, hold_it, thing))

    def _spawn(self, task: Callable[..., Any], *args: object) -> None:
        import trio

        try:
            trio.lowlevel.spawn_system_task(task, *args, name="aiopool")
        except RuntimeError:
            pass  # the run is ending: its system nursery takes no more tasks


def running_loop() -> object | None:
    """The asyncio loop or trio token of the loop that runs on this thread; `None` off-loop.

    trio is looked up in `sys.modules`: where nobody imported it, no run of it can be under way.
    """
    loop = asyncio._get_running_loop()
    if loop is not None:
        return loop
    lowlevel = sys.modules.get("trio.lowlevel")
    # An import under way in another thread shows a module that has no names yet.
    in_trio_run = getattr(lowlevel, "in_trio_run", None)
    if lowlevel is None or in_trio_run is None or not in_trio_run():
        return None
    token: object = lowlevel.current_trio_token()
    return token


def innermost_loop() -> object | None:
    """As `running_loop`; but where trio runs as a guest of asyncio, the loop whose code it is that runs."""
    lowlevel = sys.modules.get("trio.lowlevel")
    in_trio_task = getattr(lowlevel, "in_trio_task", None)
    if lowlevel is None or in_trio_task is None or not in_trio_task():
        return running_loop()
    token: object = lowlevel.current_trio_token()
    return token


def live_loop(running: object) -> LiveLoop:
    """What hands work to `running`, as `running_loop` gave it."""
    if isinstance(running, asyncio.AbstractEventLoop):
        return AsyncioLoop(running)
    return TrioLoop(running)


def _no_context() -> contextvars.Context:
    """An empty context: a timer that waits a minute must not keep a request's variables alive."""
    return contextvars.Context()
