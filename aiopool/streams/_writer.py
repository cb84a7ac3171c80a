"""asyncio's writer, with a `start_tls` that passes bytes that were already received to TLS."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._protocol import StreamProtocol


class StreamWriter(asyncio.StreamWriter):
    """`asyncio.StreamWriter`, with the newest version's `start_tls` on every version of Python."""

    _protocol: "StreamProtocol"
    _transport: Any
    _loop: asyncio.AbstractEventLoop

    async def start_tls(  # type: ignore[override, unused-ignore]
        self,
        sslcontext: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> None:
        """Upgrade the connection to TLS. The arguments are those of `asyncio.StreamWriter.start_tls`.

        Bytes that were received and not read yet belong to TLS: a ClientHello that arrived together with the line
        before it begins the handshake. Plain text that an attacker injected there makes the handshake fail, and is
        never read as if it had arrived over TLS.

        :raises ssl.SSLError: the handshake failed; the connection is closed.
        """
        protocol = self._protocol
        await self.drain()
        transport = self._transport
        handshake: Any = self._loop.start_tls(
            transport,
            protocol,
            sslcontext,
            server_side=protocol.is_server,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )

        def hand_over() -> None:
            early = protocol.reader.hand_over()
            if early:
                # This runs after the callback that connects TLS with the transport, and before further bytes are
                # received.
                self._loop.call_soon(_feed, transport.get_protocol(), early)

        self._transport = await _started(handshake, hand_over)
        protocol.replace_transport(self._transport)


@coroutine
def _started(running: Coroutine[Any, Any, Any], then: Callable[[], None]) -> Generator[Any, Any, Any]:
    """Run a coroutine, and call `then` when it first waits."""
    try:
        waiting = running.send(None)
        then()
        while True:
            try:
                sent = yield waiting
            except BaseException as error:
                waiting = running.throw(error)
            else:
                waiting = running.send(sent)
    except StopIteration as stop:
        return stop.value


def _feed(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    """Pass `data` to `protocol`, as a transport does that has received it."""
    while data:
        room = memoryview(protocol.get_buffer(len(data)))
        nbytes = min(len(room), len(data))
        room[:nbytes] = data[:nbytes]
        protocol.buffer_updated(nbytes)
        data = data[nbytes:]
