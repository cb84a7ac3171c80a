"""Many connections: the memory of an idle one, and the cost of busy ones beside thousands of idle ones.

A server process answers each frame with one byte. 5,000 clients send it a frame of 1 KiB each and then fall silent: by
how much has the process grown for each? Then 100 more send frames of 64 KiB, one at a time: how much CPU time does a
frame take, and how large is the process at the end? Two servers count bytes and keep none: a bare protocol, and one
with a task and a writer for each connection, as streams have. Two read frames, over asyncio's streams and over
aiopool's. Each is a fresh process, because memory that a process once used stays in its size for long.

What could make the figures misleading: they leave out the kernel's buffers; allocators round, so the next version may
change a few hundred bytes for a connection.
"""

import asyncio
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]
from _frame_server import ANSWER, HEADER, SERVERS
from _report import KIB, arguments, headline, plain_table, show, write_json

IDLE, BUSY = 5_000, 100
FIRST_FRAME, BUSY_FRAME = KIB, 64 * KIB
FRAMES = 50
AT_ONCE = 100
LOOPS = ["asyncio", "uvloop"]


class Sample(NamedTuple):
    """The figures of one server process."""

    #: bytes that it grew by, for each idle connection
    idle: float
    #: seconds of CPU time for each frame of the busy ones
    cpu: float
    #: bytes that it grew by while they were busy
    busy: int


@contextmanager
def server(loop: str, name: str) -> Iterator[tuple[psutil.Process, tuple[str, int]]]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.set_inheritable(True)
        script = str(Path(__file__).with_name("_frame_server.py"))
        command = [sys.executable, script, loop, name, str(listener.fileno())]
        with subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield psutil.Process(process.pid), listener.getsockname()
            finally:
                process.send_signal(signal.SIGKILL)


class Client:
    """One connection, with one frame at a time under way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, size: int) -> None:
        self._writer.write(HEADER.pack(size) + bytes(size))
        await self._reader.readexactly(len(ANSWER))

    def close(self) -> None:
        self._writer.close()


async def connect(address: tuple[str, int], count: int) -> list[Client]:
    clients: list[Client] = []
    while len(clients) < count:
        group = min(AT_ONCE, count - len(clients))
        clients += [
            Client(*streams)
            for streams in await asyncio.gather(*(asyncio.open_connection(*address) for _ in range(group)))
        ]
        await asyncio.gather(*(client.send(FIRST_FRAME) for client in clients[-group:]))
    return clients


async def use(process: psutil.Process, address: tuple[str, int]) -> Sample:
    # A group is connected first, so that modules loaded at the first use, and buffers that a pool keeps for a group, do
    # not count.
    first = await connect(address, AT_ONCE)
    before = process.memory_info().rss
    idle = await connect(address, IDLE)
    quiet = process.memory_info().rss
    busy = await connect(address, BUSY)
    seconds = cpu_time(process)
    await asyncio.gather(*(send_frames(client) for client in busy))
    seconds = cpu_time(process) - seconds
    sample = Sample((quiet - before) / IDLE, seconds / (BUSY * FRAMES), process.memory_info().rss - quiet)
    for client in first + idle + busy:
        client.close()
    return sample


async def send_frames(client: Client) -> None:
    for _ in range(FRAMES):
        await client.send(BUSY_FRAME)


def cpu_time(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    options = arguments(__doc__, rounds=3, quick=1)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found: dict[tuple[str, str], list[Sample]] = {(loop, name): [] for loop in LOOPS for name in SERVERS}
    for _ in range(options.rounds):
        for (loop, name), samples in found.items():
            with server(loop, name) as (process, address):
                samples.append(asyncio.run(use(process, address)))
    headings = ("idle: bytes each", "busy: CPU a frame, µs", "busy: grew by, KiB")
    table = plain_table(f"{IDLE:,} idle connections, then {BUSY} busy ones", "server", *headings)
    for (loop, name), samples in found.items():
        table.add_row(
            f"{loop} {name}",
            f"{median(each.idle for each in samples):,.0f}",
            f"{median(each.cpu for each in samples) * 1e6:,.1f}",
            f"{median(each.busy for each in samples) / KIB:,.0f}",
        )
    show(headline(), table)
    write_json(
        options.json,
        {f"{loop} {name}": [each._asdict() for each in samples] for (loop, name), samples in found.items()},
    )


if __name__ == "__main__":
    main()
