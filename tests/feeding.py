"""Streams without a transport: what one does to a reader, and reads that are run by hand.

No loop runs here and nothing waits: a read goes on when it is told to. So every order of events can be had.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Reading:
    """A read that runs until it has to wait, and goes on with `advance`."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._waiter: asyncio.Future[None] | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.advance()

    def advance(self) -> None:
        """Go on, if what it waits for has come."""
        while not self.done and (self._waiter is None or self._waiter.done()):
            try:
                self._waiter = self._coroutine.send(None)
            except StopIteration as stop:
                self.result, self.done = stop.value, True
            except (Exception, asyncio.CancelledError) as error:
                self.error, self.done = error, True

    def cancel(self) -> None:
        """What a task does to the future that it waits for, if that is not too late, and then to the coroutine."""
        if not self._waiter.cancel():
            self._waiter.result()
            try:
                self._coroutine.throw(asyncio.CancelledError())
            except asyncio.CancelledError as error:
                self.error, self.done = error, True
        self.advance()
        assert isinstance(self.error, asyncio.CancelledError)

    def outcome(self) -> tuple[Any, ...]:
        """What can be told of the result from outside, or of the error."""
        error = self.error
        if error is None:
            return ("gave", bytes(self.result))
        return ("raised", type(error), getattr(error, "partial", None), getattr(error, "consumed", None))


def read_now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a read that has no need to wait."""
    reading = Reading(coroutine)
    assert reading.done
    if reading.error is not None:
        raise reading.error
    return reading.result


def feed(reader: Any, data: bytes) -> int:
    """Have `reader` receive `data`, as much at a time as it offers room for; in how many pieces."""
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
    """All that a reader wants of its transport."""

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
