"""An asyncio loop in a thread of its own, and `LoopBound`, through which tests on other loops use what lives there."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from .._checks import shown
from .._loops import running_loop

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


class BackgroundLoop:
    """An asyncio loop in a thread of its own."""

    def __init__(self) -> None:
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

    def start(self, coroutine: Coroutine[Any, Any, R]) -> "Future[R]":
        """Run `coroutine` here; from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run `coroutine` here, and wait for its result."""
        return self.start(coroutine).result()

    def stop(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


class LoopBound(Generic[T]):
    """An object that lives on another loop than the test, and the way to it."""

    __slots__ = ("_loop", "_obj")

    def __init__(self, obj: T, loop: "BackgroundLoop") -> None:
        self._obj = obj
        self._loop = loop

    @overload
    async def run(
        self, function: Callable[Concatenate[T, P], Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

    @overload
    async def run(self, function: Callable[Concatenate[T, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What `function(obj, ...)` returns, called and awaited on the object's own loop; on asyncio and trio.

        Cancelled, it cancels the call.

        :raises Exception: what the function raises.
        """
        future = self._loop.start(call(function, self._obj, *args, **kwargs))
        if asyncio._get_running_loop() is not None:
            return await asyncio.wrap_future(future)
        import trio

        try:
            return await trio.to_thread.run_sync(future.result, abandon_on_cancel=True)
        except trio.Cancelled:
            future.cancel()
            raise

    @overload
    def run_sync(
        self, function: Callable[Concatenate[T, P], Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

    @overload
    def run_sync(self, function: Callable[Concatenate[T, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def run_sync(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As `run`, for a test that is no coroutine: waits for the result.

        :raises RuntimeError: a loop runs on this thread, and would stand still.
        :raises Exception: what the function raises.
        """
        if running_loop() is not None:
            raise RuntimeError("run_sync() would stop the running loop: await run() there")
        return self._loop.run(call(function, self._obj, *args, **kwargs))

    def __repr__(self) -> str:
        return f"<aiopool.testing.LoopBound {shown(self._obj)}>"


async def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    result = function(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result
