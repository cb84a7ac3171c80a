"""Helpers for the tests of streams: loops with transports, checks of their reports, and waiting."""

import asyncio
import gc
import importlib.util
import socket
import struct
import sys
from contextlib import asynccontextmanager

import anyio
import pytest
from loops import PATIENCE

KIB = 1024
MIB = 1024 * KIB

# Streams are for asyncio: trio has no transports.
LOOPS: dict[str, dict[str, object]] = {"asyncio": {"use_uvloop": False}}
if importlib.util.find_spec("uvloop"):
    LOOPS["uvloop"] = {"use_uvloop": True}
# asyncio's loop, with transports of its own, also for TLS. On 3.11 asyncio's own streams hang on it when a plain
# callback raises.
if importlib.util.find_spec("aiofastnet") and sys.version_info >= (3, 12):
    import aiofastnet

    LOOPS["aiofastnet"] = {"loop_factory": aiofastnet.loop_factory()}
ON_EACH_LOOP = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        "anyio_backend", [pytest.param(("asyncio", options), id=loop) for loop, options in LOOPS.items()]
    ),
    pytest.mark.usefixtures("reports"),
]


async def reported():
    """For a fixture: the errors that the loop reported. A test that expects some must remove them."""
    found = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: found.append(context))
    yield found
    await asyncio.sleep(0)
    gc.collect()  # a future whose exception was never retrieved reports that now
    assert found == []


async def begun(coroutine):
    """A task that has run until it had to wait: tasks take their first steps in the order of their creation."""
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    return task


async def until(condition):
    """Wait until `condition` is true, for example because the other end of a socket noticed something."""
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.001)


def reset(sock):
    """Close the connection so that the other end sees an error."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Peer:
    """The other end, as a plain socket."""

    def __init__(self, sock):
        sock.setblocking(False)
        self.sock = sock
        self.loop = asyncio.get_running_loop()

    async def send(self, data):
        await self.loop.sock_sendall(self.sock, data)

    async def receive(self, n):
        received = bytearray()
        while len(received) < n and (more := await self.loop.sock_recv(self.sock, n - len(received))):
            received += more
        return received

    def end(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        reset(self.sock)


@asynccontextmanager
async def connected(streams, **kwds):
    """A reader, a writer, and their peer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        reader, writer = await streams.open_connection(*listening.getsockname(), **kwds)
        sock, _ = await asyncio.get_running_loop().sock_accept(listening)
    with sock:
        yield reader, writer, Peer(sock)
        writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        pass
