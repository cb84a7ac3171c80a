"""The protocol that connects a transport to a `StreamReader` and a `StreamWriter`.

It is a `BufferedProtocol`, which asyncio and uvloop both ask for a buffer to receive into, over TLS too. asyncio's own
`StreamReaderProtocol` is not one, and for uvloop a subclass of it cannot become one.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from .._checks import shown
from ._reader import StreamReader, fresh
from ._writer import StreamWriter

ClientConnected = Callable[[StreamReader[Any], StreamWriter], Awaitable[None] | None]


class StreamProtocol(asyncio.BufferedProtocol):
    """Replaces `asyncio.StreamReaderProtocol`. asyncio's writer calls the methods with one underscore."""

    __slots__ = (
        "__weakref__",
        "_client_connected_cb",
        "_close_waiters",
        "_drain_waiters",
        "_lost",
        "_over_ssl",
        "_task",
        "_writing_paused",
        "buffer_updated",
        "get_buffer",
        "reader",
    )

    def __init__(self, reader: StreamReader[Any], client_connected_cb: ClientConnected | None = None) -> None:
        self.reader = reader
        # The transport calls the reader directly.
        self.get_buffer = reader.get_buffer  # type: ignore[assignment, method-assign]
        self.buffer_updated = reader.buffer_updated  # type: ignore[assignment, method-assign]
        self._client_connected_cb = client_connected_cb
        self._task: asyncio.Task[None] | None = None
        self._over_ssl = False
        self._writing_paused = False
        # Each wait has its own future, so that cancelling one does not cancel others. The lists are created when
        # needed, so that thousands of connections do not each have two lists.
        self._drain_waiters: list[asyncio.Future[None]] | None = None
        self._close_waiters: list[asyncio.Future[None]] | None = None
        self._lost = False

    @property
    def is_server(self) -> bool:
        """Whether this is the server's side of the connection."""
        return self._client_connected_cb is not None

    # --- called by the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.replace_transport(transport)
        if self._client_connected_cb is None:
            return
        loop = self.reader._loop
        writer = StreamWriter(transport, self, None, loop)  # type: ignore[arg-type]
        try:
            handling = self._client_connected_cb(self.reader, writer)
            if inspect.isawaitable(handling) and not (asyncio.iscoroutine(handling) or asyncio.isfuture(handling)):
                raise TypeError(
                    "client_connected_cb must return a coroutine, a future, or an object that is not awaitable, not "
                    f"{shown(handling)}, which nothing would await"
                )
        except Exception as error:
            _report(loop, transport, error)
            return
        if asyncio.iscoroutine(handling):
            self._task = loop.create_task(handling)
            self._task.add_done_callback(partial(_handled, transport))

    def eof_received(self) -> bool:
        self.reader.feed_eof()
        return not self._over_ssl  # TLS does not support half-closed connections

    def connection_lost(self, exc: Exception | None) -> None:
        reader = self.reader
        broke = reader.exception() if exc is None else exc
        if broke is None:
            if not self._over_ssl:
                reader.drop_what_is_left()
            reader.feed_eof()
        elif reader.exception() is None:
            reader.set_exception(broke)
        reader.lose_transport()
        self._lost = True
        self._task = None
        waiters = [*(self._drain_waiters or ()), *(self._close_waiters or ())]
        self._close_waiters = None
        for waiter in waiters:
            _settle(waiter, broke)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        for waiter in self._drain_waiters or ():
            _settle(waiter, None)

    # --- called by the writer ---

    async def _drain_helper(self) -> None:
        exc = self.reader.exception()
        if exc is not None:
            raise fresh(exc)
        if self._lost:
            raise ConnectionResetError("Connection lost")
        if not self._writing_paused:
            return
        waiter = self.reader._loop.create_future()
        if self._drain_waiters is None:
            self._drain_waiters = []
        waiters = self._drain_waiters
        waiters.append(waiter)
        try:
            await waiter
        finally:
            waiters.remove(waiter)

    def _get_close_waiter(self, writer: asyncio.StreamWriter) -> "asyncio.Future[None]":
        waiter: asyncio.Future[None] = self.reader._loop.create_future()
        if self._lost:
            _settle(waiter, self.reader.exception())
        else:
            if self._close_waiters is None:
                self._close_waiters = []
            self._close_waiters.append(waiter)
            waiter.add_done_callback(self._forget)
        return waiter

    def _forget(self, waiter: "asyncio.Future[None]") -> None:
        if waiter.cancelled() and self._close_waiters is not None:
            self._close_waiters.remove(waiter)

    def replace_transport(self, transport: asyncio.BaseTransport) -> None:
        """Use `transport` from now on."""
        self._over_ssl = transport.get_extra_info("sslcontext") is not None
        self.reader.set_transport(transport)


def _settle(waiter: "asyncio.Future[None]", exc: BaseException | None) -> None:
    if waiter.done():
        return
    if exc is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(fresh(exc))


def _handled(transport: asyncio.BaseTransport, task: "asyncio.Task[None]") -> None:
    """Called when the task that serves a client has ended."""
    if task.cancelled():
        transport.close()
    elif (exc := task.exception()) is not None:
        _report(task.get_loop(), transport, exc)


def _report(loop: asyncio.AbstractEventLoop, transport: asyncio.BaseTransport, error: BaseException) -> None:
    """Report an exception of the callback to the loop, and close the connection."""
    loop.call_exception_handler(
        {"message": "Unhandled exception in client_connected_cb", "exception": error, "transport": transport}
    )
    transport.close()
