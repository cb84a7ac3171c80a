"""Between a transport on one side, and a `StreamReader` and a `StreamWriter` on the other.

A `BufferedProtocol`, which asyncio and uvloop both ask where to receive to, over TLS as well. asyncio's own is none,
and for uvloop can't be made one.
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
    """What `asyncio.StreamReaderProtocol` is there. The names with one underscore are what asyncio's writer calls."""

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
        # Each wait has a future of its own, so that to cancel one cancels no other. Lists that are made when somebody
        # waits, so that thousands of connections do not each have two.
        self._drain_waiters: list[asyncio.Future[None]] | None = None
        self._close_waiters: list[asyncio.Future[None]] | None = None
        self._lost = False

    @property
    def is_server(self) -> bool:
        """Whether the other end has connected to this one."""
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
                    "client_connected_cb must return a coroutine, a future, or nothing that can be awaited, not "
                    f"{shown(handling)}: nothing would await it"
                )
        except Exception as error:
            _report(loop, transport, error)
            return
        if asyncio.iscoroutine(handling):
            self._task = loop.create_task(handling)
            self._task.add_done_callback(partial(_handled, transport))

    def eof_received(self) -> bool:
        self.reader.feed_eof()
        return not self._over_ssl  # over TLS there is no half of a connection to keep open

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
        """From now on the bytes come from there."""
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
    """The task that serves a client has ended."""
    if task.cancelled():
        transport.close()
    elif (exc := task.exception()) is not None:
        _report(task.get_loop(), transport, exc)


def _report(loop: asyncio.AbstractEventLoop, transport: asyncio.BaseTransport, error: BaseException) -> None:
    """Tell the loop that a client is not served, and close its connection."""
    loop.call_exception_handler(
        {"message": "Unhandled exception in client_connected_cb", "exception": error, "transport": transport}
    )
    transport.close()
