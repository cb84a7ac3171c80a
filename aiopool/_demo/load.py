"""The load: a separate process that sends messages to the server and checks every answer.

It is a separate process so that it does not add to the server's CPU time or compete for the server's GIL. On each
connection it sends one message at a time, and the next one after the answer has arrived. So there are never more
messages in flight than connections, and no message of one round is left for the next.

Its parent requests rounds on stdin, each by a line with a kind of streams and a number of seconds, and gets a line of
JSON on stdout for each. The connections of the other kind are silent meanwhile. Closing stdin ends the process; if the
parent dies, the connections are closed, which ends it too.
"""

import asyncio
import itertools
import json
import os
import random
import sys
from collections.abc import Iterator
from typing import NamedTuple, cast

from .loops import loop_factory
from .wire import DIGEST, HEADER, HOST, KINDS, digest

READY = "ready"
"""The line that tells the parent that all connections are established."""

VARIETY = 256
"""How many different messages there are."""

PIECE = 64 * 1024
"""The most bytes that one connection sends before the next connection may send.

Over loopback a message would arrive all at once, so the server would never hold more than one buffer. On a network,
messages of many connections arrive at the same time, piece by piece.
"""


class Message(NamedTuple):
    """A message, and the right answer."""

    header: bytes
    payload: memoryview
    answer: bytes


def messages(largest: int) -> list[Message]:
    """Messages of random bytes: one of the largest size, then others of random sizes, uniformly from 1 byte up."""
    # All are slices of one block; otherwise this process would need gigabytes for large messages.
    block = memoryview(os.urandom(2 * largest))
    mixed = []
    for size in [largest, *(random.randint(1, largest) for _ in range(VARIETY - 1))]:
        start = random.randrange(largest)
        payload = block[start : start + size]
        mixed.append(Message(HEADER.pack(size), payload, digest(payload)))
    return mixed


class Counts:
    """Counts of the answers of one round."""

    def __init__(self) -> None:
        self.messages = 0
        self.mismatches = 0

    def check(self, message: Message, answer: bytes) -> None:
        """Count `message`, and check `answer`."""
        self.messages += 1
        self.mismatches += answer != message.answer


class Sender(asyncio.Protocol):
    """One connection: sends a message, awaits its answer, checks it, sends the next."""

    def __init__(self, traffic: Iterator[Message]) -> None:
        self._traffic = traffic
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports do not inherit from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    async def send_until(self, deadline: float, counts: Counts) -> None:
        """Send messages, at least one, until `deadline` (in the loop's time). Returns when the last is answered.

        :raises ConnectionError: the server has closed the connection.
        """
        if self._transport.is_closing():
            raise ConnectionError("the server has closed the connection")
        self._deadline = deadline
        self._counts = counts
        self._done = self._loop.create_future()
        self._send_next()
        await self._done

    def _send_next(self) -> None:
        self._message = next(self._traffic)
        self._answer = b""
        self._transport.write(self._message.header)
        self._send_from(0)

    def _send_from(self, start: int) -> None:
        end = start + PIECE
        self._transport.write(self._message.payload[start:end])
        if end < len(self._message.payload):
            self._loop.call_soon(self._send_from, end)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if len(self._answer) < DIGEST.size:
            return
        self._counts.check(self._message, self._answer)
        if self._loop.time() < self._deadline:
            self._send_next()
        elif self._done is not None:
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError("the server has closed the connection"))

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


async def connect(ports: list[int], mixed: list[Message], connections: int) -> list[Sender]:
    """Connect to the ports in turn, one connection after another, so that the server's backlog need not hold all."""
    senders = []
    for number in range(connections):
        # Each starts at a different position in the same messages.
        begin = number * VARIETY // connections
        traffic = itertools.cycle(mixed[begin:] + mixed[:begin])
        senders.append(await _connect(ports[number % len(ports)], traffic))
    return senders


async def _connect(port: int, traffic: Iterator[Message]) -> Sender:
    _, sender = await asyncio.get_running_loop().create_connection(lambda: Sender(traffic), HOST, port)
    return sender


async def send_round(senders: list[Sender], seconds: float) -> dict[str, float]:
    """Send on all connections for `seconds`. Returns the counts, and the time until the last answer."""
    loop = asyncio.get_running_loop()
    counts = Counts()
    began = loop.time()
    await asyncio.gather(*(sender.send_until(began + seconds, counts) for sender in senders))
    return {**vars(counts), "seconds": loop.time() - began}


async def close(senders: list[Sender]) -> None:
    """Close the connections, and let the loop run once to do so."""
    for sender in senders:
        sender.close()
    await asyncio.sleep(0)


def main(largest: str, connections: str, *ports: str) -> None:
    """Run the rounds that the parent requests, until it closes stdin.

    `connections` is the number for each kind of streams; `ports` has one string for each of `KINDS`, such as "1,2".
    """
    mixed = messages(int(largest))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        senders = {}
        for kind, listed in zip(KINDS, ports, strict=True):
            senders[kind] = runner.run(connect([int(port) for port in listed.split(",")], mixed, int(connections)))
        print(READY, flush=True)
        # The server sends nothing between rounds, so the loop need not run while this waits for a line.
        for line in sys.stdin:
            asked, seconds = line.split()
            (kind,) = [each for each in KINDS if each == asked]
            print(json.dumps(runner.run(send_round(senders[kind], float(seconds)))), flush=True)
        for each in senders.values():
            runner.run(close(each))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ConnectionError as error:
        sys.exit(f"the load of the aiopool demo: {error}")
