"""Streams without a transport: feeding a reader, and running reads step by step.

No loop runs here and nothing waits: a read continues when the test says so. So tests can produce any order of events.
"""

import asyncio
import ctypes
from collections.abc import Coroutine
from typing import Any


class Reading:
    """A read that runs until it has to wait, and continues with `advance`."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._waiter: asyncio.Future[None] | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.advance()

    def advance(self) -> None:
        """Continue, if the future that it waits for is done."""
        while not self.done and (self._waiter is None or self._waiter.done()):
            try:
                self._waiter = self._coroutine.send(None)
            except StopIteration as stop:
                self.result, self.done = stop.value, True
            except (Exception, asyncio.CancelledError) as error:
                self.error, self.done = error, True

    def cancel(self) -> None:
        """Cancel the read as a task would: the future that it waits for, or the coroutine if the future is done."""
        if not self._waiter.cancel():
            self._waiter.result()
            try:
                self._coroutine.throw(asyncio.CancelledError())
            except asyncio.CancelledError as error:
                self.error, self.done = error, True
        self.advance()
        assert isinstance(self.error, asyncio.CancelledError)

    def outcome(self) -> tuple[Any, ...]:
        """The visible result or error, for comparisons."""
        error = self.error
        if error is None:
            return ("gave", bytes(self.result))
        return ("raised", type(error), getattr(error, "partial", None), getattr(error, "consumed", None))


def read_now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a read that need not wait, and return its result."""
    reading = Reading(coroutine)
    assert reading.done
    if reading.error is not None:
        raise reading.error
    return reading.result


def address(view: memoryview) -> int:
    """Where the bytes of a view are."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def feed(reader: Any, data: bytes) -> int:
    """Have `reader` receive `data`, in pieces of the size that it offers. Returns the number of pieces."""
    pieces = 0
    while data:
        offered = reader.get_buffer(-1)
        received = len(data[: len(offered)])
        assert received > 0
        offered[:received] = data[:received]
        reader.buffer_updated(received)
        data = data[received:]
        pieces += 1
    return pieces


class Pausable:
    """The part of a transport that a reader uses."""

    def __init__(self, sslcontext: object = None) -> None:
        self.paused = False
        self._sslcontext = sslcontext

    def get_extra_info(self, name: str) -> object:
        assert name == "sslcontext"
        return self._sslcontext

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False
