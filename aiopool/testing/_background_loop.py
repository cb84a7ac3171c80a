"""An asyncio loop in its own thread, and `LoopBound`, by which tests on other loops use an object on that loop.

Results and exceptions of code on that loop are passed back as values, not as the result or exception of a future, for
two reasons. `SystemExit` in a task would end the loop, so every later test would find it closed. And an exception that
passes through futures collects the frames of asyncio and `concurrent.futures` in its traceback, all of which pytest
shows.

A fork copies the objects but not the thread, so in the child a call would wait forever. Each call checks this first.
"""

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from .._checks import shown
from .._core.loops import running_loop

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


class Outcome:
    """A function's result or exception."""

    __slots__ = ("_error", "_value")

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self._value = value
        self._error = error

    def get(self) -> Any:
        """Return the result, or raise the exception."""
        __tracebackhide__ = True
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            del self  # avoids a reference cycle: the error's traceback refers to this frame


async def outcome_of(awaitable: Awaitable[Any]) -> Outcome:
    """Await `awaitable`, and return its result or exception as an `Outcome`, even if it is a cancellation."""
    __tracebackhide__ = True
    try:
        return Outcome(await awaitable)
    except BaseException as error:
        return Outcome(error=error)


async def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `function`, and await its result if it is awaitable."""
    __tracebackhide__ = True
    result = function(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


class BackgroundLoop:
    """An asyncio loop in its own thread."""

    def __init__(self) -> None:
        self._process = os.getpid()
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="aiopool fixtures", daemon=True)
        self._thread.start()
        started.result()

    def _run(self, started: "Future[None]") -> None:
        asyncio.run(self._wait(started))

    async def _wait(self, started: "Future[None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        started.set_result(None)
        await self._stop.wait()

    def runs_here(self) -> bool:
        """Whether the loop's thread is in this process; `False` in the child of a fork."""
        return os.getpid() == self._process

    def check_runs_here(self) -> None:
        """Raise if the loop's thread is not in this process."""
        __tracebackhide__ = True
        if not self.runs_here():
            raise RuntimeError(
                f"this object lives on an event loop of process {self._process}, which does not run in process "
                f"{os.getpid()}: a fork copies no threads. Use the object in the process that created it, or request "
                f"the fixture in a test whose set-up also runs in the child"
            )

    def start(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Outcome]":
        """Call `function` on this loop, and await its result. Thread-safe. Cancelling the future cancels the call.

        :raises RuntimeError: this process is the child of a fork, and the loop's thread stayed in the parent.
        """
        __tracebackhide__ = True
        self.check_runs_here()
        return asyncio.run_coroutine_threadsafe(outcome_of(call(function, *args, **kwargs)), self._loop)

    def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Do the same as `start`, and wait for the result."""
        __tracebackhide__ = True
        future = self.start(function, *args, **kwargs)
        try:
            outcome = future.result()
        except BaseException:
            future.cancel()  # nothing waits for the result any more, after Ctrl-C or a timeout from a pytest plugin
            raise
        return outcome.get()

    def stop(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


class LoopBound(Generic[T]):
    """A handle to an object that lives on another loop, for use from a test's loop."""

    __slots__ = ("_loop", "_obj")

    def __init__(self, obj: T, loop: BackgroundLoop) -> None:
        self._obj = obj
        self._loop = loop

    @overload
    async def run(
        self, function: Callable[Concatenate[T, P], Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

    @overload
    async def run(self, function: Callable[Concatenate[T, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call and await `function(obj, ...)` on the object's loop, and return its result. Works on asyncio and trio.

        If this is cancelled, the call is cancelled too.

        :raises RuntimeError: this process is the child of a fork, and the loop stayed in the parent.
        :raises Exception: whatever the function raises.
        """
        __tracebackhide__ = True
        future = self._loop.start(function, self._obj, *args, **kwargs)
        if asyncio._get_running_loop() is not None:
            return (await asyncio.wrap_future(future)).get()
        import trio

        try:
            outcome = await trio.to_thread.run_sync(future.result, abandon_on_cancel=True)
        except trio.Cancelled:
            future.cancel()
            raise
        return outcome.get()

    @overload
    def run_sync(
        self, function: Callable[Concatenate[T, P], Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

    @overload
    def run_sync(self, function: Callable[Concatenate[T, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def run_sync(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Do the same as `run`, for tests that are not coroutines: wait for the result.

        :raises RuntimeError: a loop runs on this thread and would be blocked; or this process is the child of a fork,
            and the loop stayed in the parent.
        :raises Exception: whatever the function raises.
        """
        __tracebackhide__ = True
        self._loop.check_runs_here()  # first, because the child of a fork in a coroutine seems to have a running loop
        if running_loop() is not None:
            raise RuntimeError("run_sync() would block the running loop: await run() instead")
        return self._loop.run(function, self._obj, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<aiopool.testing.LoopBound {shown(self._obj)}>"
