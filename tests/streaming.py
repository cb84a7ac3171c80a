"""What the tests of streams share: the loops that have transports, a look at what they report, and waiting for them."""

import asyncio
import gc
import importlib.util
import socket

import anyio
import pytest
from loops import PATIENCE

KIB = 1024
MIB = 1024 * KIB

# Streams are for asyncio: trio has no transports.
LOOPS = ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]
ON_EACH_LOOP = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        "anyio_backend", [pytest.param(("asyncio", {"use_uvloop": loop == "uvloop"}), id=loop) for loop in LOOPS]
    ),
    pytest.mark.usefixtures("reports"),
    pytest.mark.filterwarnings("ignore:Buffers are not used again on Python 3.11:RuntimeWarning"),
]


async def reported():
    """For a fixture: what the loop reported. A test that expects something takes it out."""
    found = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: found.append(context))
    yield found
    await settled()
    gc.collect()  # a future whose exception nobody has seen reports that now
    assert found == []


async def settled():
    """Let everything happen that is to happen soon."""
    for _ in range(5):
        await anyio.sleep(0)


async def until(condition):
    """Wait for another end of a socket to have noticed something."""
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.001)


def skip_without_marks(aiopool):
    """For a fixture: only where sockets have low-water marks that can be relied on."""
    if not aiopool._low_water._KNOWN_TO_WORK:
        pytest.skip("this system is not known to do what the mark needs")


def mark_of(sock):
    """A socket's low-water mark, in bytes."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)
