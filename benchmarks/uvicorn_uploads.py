"""The cost of an upload to uvicorn with `PooledHttpToolsProtocol`, beside uvicorn's own protocol.

One client uploads bodies of one size over one connection, one at a time, to a server process with each protocol. It
sends the header and then the body, as most clients do, so the body often arrives later. The result is the server's CPU
time for each upload, system time included, divided by that of uvicorn's own protocol in the same round. Each round has
fresh processes, because once a process has freed something large, glibc keeps more memory from then on. Two processes
of one program also differ: "control" is a second server with uvicorn's own protocol, and its ratio says by how much.

"Whole" is an application that joins the body, as frameworks do for `request.body()`; "stream" reads each piece and
drops it.

What could make the figures misleading: the application does nothing else. A framework adds the same cost to both, which
brings the ratio nearer to 1. Over loopback the receiver pays for a part of the sender's work.
"""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from _allocators import Allocator, allocators, environment_of
from _report import KIB, MIB, arguments, headline, plain_table, show, spread, write_json
from _timing import Spread

BYTES_A_ROUND = 64 * MIB
MOST_UPLOADS = 1000
SIZES = {"0": 0, "16 KiB": 16 * KIB, "64 KiB": 64 * KIB, "1 MiB": MIB, "16 MiB": 16 * MIB}
LOOPS = ["asyncio", "uvloop"]
ALLOCATORS = {allocator.name: allocator for allocator in allocators()}
POOLED = "aiopool.integrations.uvicorn:PooledHttpToolsProtocol"
PROTOCOLS = {"stock": "httptools", "control": "httptools", "pooled": POOLED}


class Case(NamedTuple):
    """One row of the table, measured with each protocol."""

    loop: str
    allocator: str
    path: str
    size: str


class Client:
    """A connection to one server."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address)
        # As HTTP clients do. Otherwise a small body would wait for the acknowledgement of its header.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")

    def close(self) -> None:
        self._answers.close()
        self._socket.close()

    def upload(self, path: str, body: bytes) -> float:
        """Upload `body`, and return the number that the server answers."""
        head = f"POST /{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode())
        self._socket.sendall(body)
        length = 0
        while (line := self._answers.readline()) != b"\r\n":
            if not line:
                sys.exit("the server closed the connection")
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return float(self._answers.read(length))

    def cpu_for_each(self, path: str, body: bytes) -> float:
        """Seconds of CPU time of the server for each of many uploads."""
        uploads = min(MOST_UPLOADS, BYTES_A_ROUND // (len(body) + 1))
        before = self.upload("cpu", b"")
        for _ in range(uploads):
            if self.upload(path, body) != len(body):
                sys.exit("the server did not receive the whole body")
        return (self.upload("cpu", b"") - before) / uploads


@contextmanager
def client_of(loop: str, protocol: str, allocator: Allocator) -> Iterator[Client]:
    """A connection to a fresh server process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script = str(Path(__file__).with_name("_upload_server.py"))
        command = [sys.executable, script, loop, protocol, str(listener.fileno())]
        with subprocess.Popen(command, pass_fds=[listener.fileno()], env=environment_of(allocator)) as process:
            client = Client(listener.getsockname())
            try:
                yield client
            finally:
                client.close()
                process.terminate()


def measure(case: Case, rounds: int) -> dict[str, list[float]]:
    """Seconds for each upload, by protocol, one entry a round."""
    seconds: dict[str, list[float]] = {name: [] for name in PROTOCOLS}
    body = os.urandom(SIZES[case.size])
    for _ in range(rounds):
        with ExitStack() as stack:
            clients = {
                name: stack.enter_context(client_of(case.loop, PROTOCOLS[name], ALLOCATORS[case.allocator]))
                for name in random.sample(list(PROTOCOLS), len(PROTOCOLS))
            }
            for client in clients.values():
                client.cpu_for_each(case.path, body)  # to warm up
            for name, client in clients.items():
                seconds[name].append(client.cpu_for_each(case.path, body))
    return seconds


def main() -> None:
    args = arguments(__doc__, rounds=9, quick=3)
    cases = [
        Case(loop, allocator, path, size)
        for loop in LOOPS
        for allocator in ALLOCATORS
        for size, count in SIZES.items()
        for path in (["whole", "stream"] if count >= MIB else ["whole"])
    ]
    columns = ["loop, allocator, application, size", "stock, µs", "control", "pooled"]
    table = plain_table("CPU time for each upload", *columns)
    figures = []
    for case in cases:
        seconds = measure(case, args.rounds)
        ratios = [spread(Spread.of_ratios(seconds[name], seconds["stock"])) for name in ("control", "pooled")]
        table.add_row(", ".join(case), f"{Spread.of(seconds['stock']).median * 1e6:,.0f}", *ratios)
        figures.append({**case._asdict(), "seconds": seconds})
        print(", ".join(case), *ratios, file=sys.stderr)
    show(headline(), table)
    write_json(args.json, {"uploads": figures})


if __name__ == "__main__":
    main()
