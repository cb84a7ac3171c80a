"""Frames over loopback: the CPU time of asyncio's `StreamReader`, aiopool's and a blocking socket for each frame.

Another process sends length-prefixed frames as fast as they are taken. Each reader reads the header, then the body, and
drops both. The blocking socket has `recv_into` write each body into the same `bytearray`: no reader in Python can be
expected to be faster than that. TLS has a table of its own; there, both readers pay for the same decryption. Lines of
100 bytes have one too, and frames in turn: the client sends one, and the other process sends it back.

CPU time is that of the reading process, user and system. A slow reader lets frames pile up, and then gets more of them
in one receive; MB/s shows which reader that was.

All of that runs once with each allocator (`_allocators.py` says why), and the tables have the ratios side by side. With
`--here` one process measures with its own allocator, and shows times too.

What could make the figures misleading: loopback loses no packets and has the highest bandwidth there is, so each
receive brings much data; the sender runs on another core, if there is one; nothing reads the body, so that it may leave
the CPU's caches before a program would have read it.
"""

import asyncio
import random
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any, NamedTuple

import trustme
import uvloop
from _allocators import by_allocator
from _frames import FRAMES, HEADER, LINES, REQUEST, TURNS
from _report import KIB, MIB, arguments, headline, name_of, plain_table, show, spread
from _timing import Spread, no_collections
from rich.table import Table

from aiopool import streams

SIZES = [64, KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 16 * MIB]
LINE = 100
SIZES_IN_TURN = [64, KIB, 64 * KIB]
MOST_TURNS = 2_000
VOLUME = 64 * MIB
MOST_FRAMES = 20_000


class Sample(NamedTuple):
    """Seconds for one frame."""

    cpu: float
    wall: float


class Sender(NamedTuple):
    """The process that sends frames."""

    address: Any
    #: the client's context, if the sender uses TLS
    tls: ssl.SSLContext | None


Receive = Callable[[Sender, int, int], Sample]


async def read_frames(reader: Any, writer: Any, size: int, count: int) -> None:
    for _ in range(count):
        length = int.from_bytes(await reader.readexactly(HEADER.size), "big")
        await reader.readexactly(length)


async def read_lines(reader: Any, writer: Any, size: int, count: int) -> None:
    for _ in range(count):
        await reader.readline()


async def take_turns(reader: Any, writer: Any, size: int, count: int) -> None:
    frame = HEADER.pack(size) + bytes(size)
    for _ in range(count):
        writer.write(frame)
        length = int.from_bytes(await reader.readexactly(HEADER.size), "big")
        await reader.readexactly(length)


READ = {FRAMES: read_frames, LINES: read_lines, TURNS: take_turns}


def streaming(
    open_connection: Callable[..., Awaitable[Any]],
    run: Callable[[Coroutine[Any, Any, Sample]], Sample],
    kind: int = FRAMES,
) -> Receive:
    read = READ[kind]

    async def receive(sender: Sender, size: int, count: int) -> Sample:
        reader, writer = await open_connection(
            *sender.address, ssl=sender.tls, server_hostname=None if sender.tls is None else "localhost"
        )
        warm = warm_up(count)
        writer.write(REQUEST.pack(kind, size, warm + count))
        await read(reader, writer, size, warm)
        cpu, wall = process_time(), perf_counter()
        await read(reader, writer, size, count)
        sample = Sample((process_time() - cpu) / count, (perf_counter() - wall) / count)
        writer.close()
        return sample

    return lambda sender, size, count: run(receive(sender, size, count))


def blocking(sender: Sender, size: int, count: int) -> Sample:
    header, body = bytearray(HEADER.size), bytearray(size)
    warm = warm_up(count)
    with socket.create_connection(sender.address) as connection:
        connection.sendall(REQUEST.pack(FRAMES, size, warm + count))
        read_blocking(connection, header, body, warm)
        cpu, wall = process_time(), perf_counter()
        read_blocking(connection, header, body, count)
        return Sample((process_time() - cpu) / count, (perf_counter() - wall) / count)


def read_blocking(connection: socket.socket, header: bytearray, body: bytearray, count: int) -> None:
    for _ in range(count):
        for target in (memoryview(header), memoryview(body)):
            while target:
                target = target[connection.recv_into(target) :]


def warm_up(count: int) -> int:
    return max(1, count // 10)


LOOPS: dict[str, Any] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
OPEN: dict[str, Any] = {"StreamReader": asyncio.open_connection, "aiopool": streams.open_connection}


def each_loop(kind: int = FRAMES) -> dict[str, Receive]:
    return {
        f"{loop} {name}": streaming(open_connection, run, kind)
        for loop, run in LOOPS.items()
        for name, open_connection in OPEN.items()
    }


STREAMS = each_loop()
READERS: dict[str, Receive] = {"blocking": blocking, **STREAMS}


@contextmanager
def sender(*certificate: str) -> Iterator[Any]:
    """Run a process that sends frames, over TLS if there is a certificate file; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        command = [sys.executable, str(Path(__file__).with_name("_frames.py")), str(listener.fileno()), *certificate]
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as process:
            try:
                yield listener.getsockname()
            finally:
                process.kill()


@contextmanager
def tls_sender() -> Iterator[Sender]:
    """The same over TLS, with a certificate of its own."""
    authority = trustme.CA()
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with TemporaryDirectory() as directory:
        file = Path(directory, "certificate.pem")
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(file)
        with sender(str(file)) as address:
            yield Sender(address, trust)


Found = dict[int, dict[str, list[Sample]]]


def measure(
    source: Sender,
    readers: dict[str, Receive],
    rounds: int,
    sizes: Sequence[int] = SIZES,
    most: int = MOST_FRAMES,
) -> Found:
    """Measure each reader once a round for each size, in shuffled order."""
    found: Found = {size: {name: [] for name in readers} for size in sizes}
    for size, samples in found.items():
        count = min(most, VOLUME // size)
        names = list(readers)
        for _ in range(rounds):
            random.shuffle(names)
            for name in names:
                samples[name].append(readers[name](source, size, count))
    return found


def ratio(samples: dict[str, list[Sample]], name: str, base: str) -> Spread:
    """CPU time of a reader divided by that of `base`."""
    return Spread.of_ratios(cpu(samples[name]), cpu(samples[base]))


def cpu(samples: list[Sample]) -> list[float]:
    return [sample.cpu for sample in samples]


def table(title: str, found: Found, bases: list[str]) -> Table:
    shown = plain_table(title, "frame", "reader", "CPU, µs", "MB/s", *(f"CPU / {base}" for base in bases))
    for size, samples in found.items():
        shown.add_section()
        for name, each in samples.items():
            loop = name.partition(" ")[0]
            others = [f"{loop} {base}" if base == "StreamReader" else base for base in bases]
            shown.add_row(
                name_of(size),
                name,
                f"{Spread.of(cpu(each)).median * 1e6:,.1f}",
                f"{size / Spread.of(sample.wall for sample in each).median / 1e6:,.0f}",
                *(spread(ratio(samples, name, other)) if other in samples else "" for other in others),
            )
    return shown


def measure_here(rounds: int) -> dict[str, Any]:
    """Measure and show, in this process."""
    with no_collections():
        with sender() as address:
            plain_sender = Sender(address, None)
            plain = measure(plain_sender, READERS, rounds)
            lines = measure(plain_sender, each_loop(LINES), rounds, [LINE])
            turns = measure(plain_sender, each_loop(TURNS), rounds, SIZES_IN_TURN, MOST_TURNS)
        with tls_sender() as source:
            tls = measure(source, STREAMS, rounds)
    show(
        headline(),
        table("Length-prefixed frames over TCP", plain, ["StreamReader", "blocking"]),
        table("The same over TLS", tls, ["StreamReader"]),
        table("Lines, with readline", lines, ["StreamReader"]),
        table("Frames in turn", turns, ["StreamReader"]),
    )
    found = {"tcp": plain, "tls": tls, "lines": lines, "turns": turns}
    return {name: figures(each) for name, each in found.items()}


def figures(found: Found) -> dict[str, Any]:
    return {
        str(size): {name: [sample._asdict() for sample in each] for name, each in samples.items()}
        for size, samples in found.items()
    }


def show_side_by_side(of_each: dict[str, dict[str, Any]]) -> None:
    """Show the ratios, with a column for each allocator."""
    show(
        headline(),
        ratios_of("Length-prefixed frames over TCP, aiopool / StreamReader", of_each, "tcp", "StreamReader"),
        ratios_of("Length-prefixed frames over TCP, aiopool / a blocking socket", of_each, "tcp", "blocking"),
        ratios_of("The same over TLS, aiopool / StreamReader", of_each, "tls", "StreamReader"),
        ratios_of("Lines, with readline, aiopool / StreamReader", of_each, "lines", "StreamReader"),
        ratios_of("Frames in turn, aiopool / StreamReader", of_each, "turns", "StreamReader"),
    )


def ratios_of(title: str, of_each: dict[str, Any], kind: str, base: str) -> Table:
    """CPU time of aiopool divided by that of `base`, with a column for each allocator."""
    shown = plain_table(title, "frame", "loop", *of_each)
    for size in next(iter(of_each.values()))[kind]:
        for loop in LOOPS:
            ratios = []
            for each in of_each.values():
                samples = {name: [Sample(**one) for one in some] for name, some in each[kind][size].items()}
                ratios.append(ratio(samples, f"{loop} aiopool", base if base in samples else f"{loop} {base}"))
            shown.add_row(name_of(int(size)), loop, *map(spread, ratios))
    return shown


def main() -> None:
    options = arguments(__doc__, rounds=11, quick=3, each_allocator=True)
    of_each = by_allocator(__file__, options, measure_here)
    if not options.here:
        show_side_by_side(of_each)


if __name__ == "__main__":
    main()
