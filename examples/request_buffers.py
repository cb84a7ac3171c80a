"""An upload server that receives every request into a pooled buffer.

A request is a length and that many bytes; the answer is the length and the digest of what arrived. Clients in the
same program send real requests over loopback and check each answer. Runs on uvloop where that is installed.
"""

import asyncio
import hashlib
import random
import socket
import struct
from collections.abc import Callable
from typing import cast

from aiopool import Pool

new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
try:
    from uvloop import new_event_loop as new_loop
except ImportError:
    pass  # asyncio's own loop will do

LENGTH, ANSWER = struct.Struct("!I"), struct.Struct("!I32s")
MAX_BODY = 256 * 1024
CLIENTS, UPLOADS = 8, 50

buffers = Pool(lambda: bytearray(LENGTH.size + MAX_BODY), max_idle=64, name="request buffers")


def answer_to(body: memoryview) -> bytes:
    return ANSWER.pack(len(body), hashlib.sha256(body).digest())


class UploadProtocol(asyncio.BufferedProtocol):
    """One connection of the server. It holds a buffer only while a request is under way."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._buffer: bytearray | None = None
        self._received = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        # The loop asks when there is something to read: an idle connection holds no buffer.
        if self._buffer is None:
            self._buffer = buffers.get()
        return memoryview(self._buffer)[self._received :]

    def buffer_updated(self, nbytes: int) -> None:
        assert self._buffer is not None
        received = memoryview(self._buffer)[: self._received + nbytes]
        rest = received[self._answer_all(received) :]
        received[: len(rest)] = rest
        self._received = len(rest)
        if not self._received:
            buffers.put(self._buffer)
            self._buffer = None

    def _answer_all(self, received: memoryview) -> int:
        """Answer all complete requests of a receive, often many small ones, and return their size in bytes."""
        start = 0
        while len(received) - start >= LENGTH.size:
            body = start + LENGTH.size
            end = body + LENGTH.unpack_from(received, start)[0]
            if end - body > MAX_BODY:
                self._transport.abort()
            if end > len(received):
                break
            # The answer must be bytes of its own, never a view of the buffer: a transport goes on sending after
            # write() returns, and by then the next request may have been received into the same buffer.
            self._transport.write(answer_to(received[body:end]))
            start = end
        return start

    def pause_writing(self) -> None:
        # A client that does not read its answers may send no more requests.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        # The loop asks for a buffer to receive the end of the stream as well.
        if self._buffer is not None:
            buffers.put(self._buffer)


async def run_client(address: tuple[str, int]) -> None:
    """Upload random bytes several times, and check each answer."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, address)
        for size in random.choices(range(MAX_BODY + 1), k=UPLOADS):
            with buffers.borrow() as buffer, memoryview(buffer)[: LENGTH.size + size] as request:
                LENGTH.pack_into(request, 0, size)
                request[LENGTH.size :] = random.randbytes(size)
                expected = answer_to(request[LENGTH.size :])
                # Unlike a transport's write(), this returns when all is sent: the buffer may go back after the block.
                await loop.sock_sendall(client, request)
            answer = b""
            while len(answer) < ANSWER.size and (part := await loop.sock_recv(client, ANSWER.size - len(answer))):
                answer += part
            if answer != expected:
                raise RuntimeError(f"wrong answer to an upload of {size} bytes: {answer!r}")


async def main() -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30), await loop.create_server(UploadProtocol, "127.0.0.1", 0) as server:
        await asyncio.gather(*(run_client(server.sockets[0].getsockname()) for _ in range(CLIENTS)))
    stats = buffers.stats()
    print(f"requests: {CLIENTS * UPLOADS} on {type(loop).__module__}, each answered with the right digest")
    print(f"buffers created: {stats.created}, for {stats.gets} gets by server and clients")
    print(f"hits: {stats.hits} ({stats.hit_rate:.1%}), {stats.private} of them private")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
