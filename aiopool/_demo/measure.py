"""Rounds of one kind and the other, in turns, in the same process.

Turns are short, so that whatever else the machine does falls on both kinds alike. After each of aiopool's rounds the
pool is emptied: else the round of asyncio's that follows would have idle buffers in its resident size. That makes the
pool look a little worse than in a server that runs for hours, by the buffers that each round makes anew.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]

from .._buffer_pool import BufferPool
from .load import READY
from .results import Results, Round
from .server import Server
from .wire import KINDS, Kind

CONNECTIONS = 16
"""For each loop: enough that every loop gets some, and that messages of many are under way at the same time."""

ROUND_SECONDS = 0.2
"""About how long a round takes. The more rounds, the less can a noisy one spoil."""

FEWEST_ROUNDS = 8
"""Of each kind. With fewer, no difference could be told from chance."""

MOST_ROUNDS = 100
"""Of each kind. More would tell nothing new: from here on they get longer."""

PATIENCE = 30.0
"""How much longer than asked a round of the load may take, in seconds, until it is given up."""

SAMPLE_SECONDS = 0.02
"""How often the resident size is looked at."""

MICROSECOND = 1e-6


class LoadError(Exception):
    """The load did not do what it was asked for."""


class Plan(NamedTuple):
    """What is to be measured."""

    #: of each kind
    seconds: float
    #: the largest message, in bytes
    size: int
    loops: int

    @property
    def rounds(self) -> int:
        """How many rounds of each kind."""
        return min(MOST_ROUNDS, max(FEWEST_ROUNDS, round(self.seconds / ROUND_SECONDS)))

    @property
    def round_seconds(self) -> float:
        """How long one round takes."""
        return self.seconds / self.rounds

    @property
    def connections(self) -> int:
        """How many connections the load makes, to each kind of streams."""
        return CONNECTIONS * self.loops

    @property
    def idle_timeout(self) -> float:
        """The pool's: so that one cleanup cycle falls into each round, as into each minute of a real server."""
        return self.round_seconds * 2 / 3


class Load:
    """The load process, as its parent sees it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    async def ready(self) -> None:
        """Wait until all connections are made."""
        line = (await self._read_line(PATIENCE)).decode().strip()
        if line != READY:
            raise LoadError(f"the load said {line!r} where it should have said {READY!r}")

    async def send(self, kind: Kind, seconds: float) -> dict[str, Any]:
        """Have it send to one kind of streams for `seconds`; what was answered."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{kind} {seconds}\n".encode())
        except OSError:
            pass  # it has ended: reading tells how
        answered: dict[str, Any] = json.loads(await self._read_line(seconds + PATIENCE))
        return answered

    async def end(self) -> None:
        """Let it come to its own end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.to_thread(self._process.wait)

    async def _read_line(self, patience: float) -> bytes:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(patience):
                line = await asyncio.to_thread(self._process.stdout.readline)
        except TimeoutError:
            raise LoadError(f"the load said nothing for {patience:.0f} seconds") from None
        if not line:
            raise LoadError(f"the load ended with exit code {self._process.wait()}")
        return line


@contextlib.contextmanager
def load_process(server: Server, plan: Plan) -> Iterator[Load]:
    """The load; however the block ends, the process has ended too.

    Started and ended without asyncio: so there is no await at which Ctrl-C could part the start from the block, and a
    thread that waits for a line gets its end of file when the process ends.
    """
    ports = [",".join(map(str, server.ports(kind))) for kind in KINDS]
    command = [sys.executable, "-m", "aiopool._demo.load", str(plan.size), str(plan.connections), *ports]
    with subprocess.Popen(
        command,
        # Unbuffered: else what could not be written to an ended process is tried again at the end, and raises there.
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A terminal's Ctrl-C goes to the whole process group. Ending the load is this process's business.
        process_group=None if sys.platform == "win32" else 0,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    ) as process:
        try:
            yield Load(process)
        finally:
            process.kill()


class ResidentPeak:
    """The largest resident size of this process, from `with` to its end."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.bytes = 0

    def now(self) -> int:
        """The resident size at this moment, in bytes."""
        size: int = self._process.memory_info().rss
        self.bytes = max(self.bytes, size)
        return size

    def __enter__(self) -> "ResidentPeak":
        self._sampler = asyncio.create_task(self._sample())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._sampler.cancel()

    async def _sample(self) -> None:
        while True:
            # First of all: what the round before left must have its time to go.
            await asyncio.sleep(SAMPLE_SECONDS)
            self.now()


async def measure(plan: Plan, progress: Callable[[Round, Round], None]) -> Results:
    """Run the whole plan; `progress` hears of each round over asyncio's streams and the one over aiopool's after it.

    :raises LoadError: the load process ended, or fell silent.
    """
    buffers = BufferPool(idle_timeout=plan.idle_timeout, name="messages")
    asyncio_rounds: list[Round] = []
    aiopool_rounds: list[Round] = []
    with Server(plan.loops, plan.size, buffers) as server, load_process(server, plan) as load:
        await load.ready()
        for kind in KINDS:
            await load.send(kind, plan.round_seconds)  # to warm up; it counts for nothing
        for _ in range(plan.rounds):
            buffers.clear()
            asyncio_rounds.append(await _round(load, "asyncio", plan.round_seconds))
            aiopool_rounds.append(await _round(load, "aiopool", plan.round_seconds))
            progress(asyncio_rounds[-1], aiopool_rounds[-1])
        stats = buffers.stats()
        await load.end()
    return Results(asyncio_rounds, aiopool_rounds, stats)


async def _round(load: Load, kind: Kind, seconds: float) -> Round:
    cpu = time.process_time()
    with ResidentPeak() as resident:
        answered = await load.send(kind, seconds)
        # On Windows the CPU clock ticks 64 times a second, and a round may fall between two ticks.
        cpu = max(time.process_time() - cpu, MICROSECOND)
        resident_end = resident.now()
    return Round(**answered, cpu=cpu, resident_peak=resident.bytes, resident_end=resident_end)
