"""Alternating rounds over asyncio's streams and over aiopool's, in the same process.

Rounds are short, so that other load on the machine affects both kinds equally. After each of aiopool's rounds the pool
is emptied, because idle buffers would count in the resident size of asyncio's next round. This makes the pool look
slightly worse than in a server that runs for hours, because each round has to create its buffers again.
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
from .._child_process import child_process
from .load import READY
from .results import Results, Round
from .server import Server
from .wire import KINDS, Kind

CONNECTIONS = 16
"""For each loop: enough that many messages are in flight at the same time."""

ROUND_SECONDS = 0.2
"""About how long a round takes. With more rounds, a noisy one does less harm."""

FEWEST_ROUNDS = 8
"""Of each kind. With fewer, no difference could be distinguished from chance."""

MOST_ROUNDS = 100
"""Of each kind. More would not improve the results; instead, rounds get longer."""

PATIENCE = 30.0
"""How many seconds longer than requested a round may take before the demo gives up."""

SAMPLE_SECONDS = 0.02
"""Seconds between two readings of the resident size."""

MICROSECOND = 1e-6


class LoadError(Exception):
    """The load process failed."""


class Plan(NamedTuple):
    """The parameters of the measurement."""

    #: for each kind of streams
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
        """How many connections the load opens to each kind of streams."""
        return CONNECTIONS * self.loops

    @property
    def idle_timeout(self) -> float:
        """The pool's idle timeout: short enough for a cleanup cycle in each round, as in each minute of a server."""
        return self.round_seconds * 2 / 3


class Load:
    """The load process, as used by its parent."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    async def ready(self) -> None:
        """Wait until all connections are established."""
        line = (await self._read_line(PATIENCE)).decode().strip()
        if line != READY:
            raise LoadError(f"the load process printed {line!r} instead of {READY!r}")

    async def send(self, kind: Kind, seconds: float) -> dict[str, Any]:
        """Let it send to one kind of streams for `seconds`, and return the counts of the answers."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{kind} {seconds}\n".encode())
        except OSError:
            pass  # it has ended, which the read below reports
        answered: dict[str, Any] = json.loads(await self._read_line(seconds + PATIENCE))
        return answered

    async def end(self) -> None:
        """Let it end, and wait for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.to_thread(self._process.wait)

    async def _read_line(self, patience: float) -> bytes:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(patience):
                line = await asyncio.to_thread(self._process.stdout.readline)
        except TimeoutError:
            raise LoadError(f"the load process did not answer for {patience:.0f} seconds") from None
        if not line:
            raise LoadError(f"the load process ended with exit code {self._process.wait()}")
        return line


@contextlib.contextmanager
def load_process(server: Server, plan: Plan) -> Iterator[Load]:
    """Run the load process during a block."""
    ports = [",".join(map(str, server.ports(kind))) for kind in KINDS]
    command = [sys.executable, "-m", "aiopool._demo.load", str(plan.size), str(plan.connections), *ports]
    # Unbuffered; otherwise bytes that could not be written to an ended process are written again when the file is
    # closed, which raises again.
    with child_process(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Load(process)


class ResidentPeak:
    """The largest resident size of this process during a `with` block."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.bytes = 0

    def now(self) -> int:
        """The current resident size, in bytes."""
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
            # Wait first, so that memory of the previous round can be freed.
            await asyncio.sleep(SAMPLE_SECONDS)
            self.now()


async def measure(plan: Plan, progress: Callable[[Round, Round], None]) -> Results:
    """Run all rounds. `progress` is called with each pair: a round over asyncio's streams and one over aiopool's.

    :raises LoadError: the load process ended, or does not answer.
    """
    buffers = BufferPool(idle_timeout=plan.idle_timeout, name="messages")
    asyncio_rounds: list[Round] = []
    aiopool_rounds: list[Round] = []
    with Server(plan.loops, plan.size, buffers) as server, load_process(server, plan) as load:
        await load.ready()
        for kind in KINDS:
            await load.send(kind, plan.round_seconds)  # a warm-up, which is not counted
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
        # On Windows the CPU clock ticks 64 times a second, so a round may measure 0.
        cpu = max(time.process_time() - cpu, MICROSECOND)
        resident_end = resident.now()
    return Round(**answered, cpu=cpu, resident_peak=resident.bytes, resident_end=resident_end)
