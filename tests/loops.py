"""Loops in threads, for tests that need more loops than their own."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import anyio.lowlevel
import pytest

PATIENCE = 30.0
"""Seconds after which a test that waits for another thread gives up. Only a failing test waits that long."""


class LoopThread:
    """A thread with a running asyncio loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run)
        started = threading.Event()
        self.loop.call_soon(started.set)
        self.thread.start()
        started.wait(PATIENCE)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            self._stop = self.loop.create_future()
            runner.run(self._wait())

    async def _wait(self) -> None:
        await self._stop

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` on this loop, and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function(*args)` on this loop, and return its result."""

        async def call() -> Any:
            return function(*args)

        return self.run(call())

    def stop(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self._stop.set_result, None)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@contextmanager
def loop_thread() -> Iterator[LoopThread]:
    """A `LoopThread` during a block."""
    thread = LoopThread()
    try:
        yield thread
    finally:
        thread.stop()


def on_a_loop(function: Callable[..., Any], *args: Any) -> Any:
    """The result of `function(*args)`, called on an asyncio loop here, so that it runs as a processor."""

    async def main() -> Any:
        return function(*args)

    return asyncio.run(main())


def off_loop(function: Callable[..., Any], *args: Any) -> Any:
    """The result of `function(*args)`, called here, where no loop runs."""
    return function(*args)


WHERE = pytest.mark.parametrize("where", [on_a_loop, off_loop], ids=["on a loop", "off-loop"])
"""For a test that runs a function once as a processor and once as code without a loop."""


def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Call `function(*args)` in a new thread with an empty context, and return its result."""
    return in_threads([lambda: function(*args)])[0]


def in_threads(functions: list[Callable[[], Any]]) -> list[Any]:
    """Call all `functions` at the same time, each in its own thread, and return their results."""
    results: list[Any] = [None] * len(functions)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            results[index] = functions[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    return results


async def all_freed(package: ModuleType) -> None:
    """Wait until all that pools retired is freed."""
    with anyio.fail_after(PATIENCE):
        while package._core.freeing._queue:
            await anyio.lowlevel.checkpoint()


class RunsAtOnce:
    """A `LiveLoop` that runs each callback to its end before `call_soon` returns."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_soon(self, callback: Callable[[], object]) -> bool:
        callback()
        return True


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_socket(path: Path) -> None:
    """Wait until a server in another process accepts connections at `path`."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                return probe.connect(str(path))
            except OSError:
                assert time.monotonic() < deadline, f"no server accepts connections at {path}"
        time.sleep(0.01)
