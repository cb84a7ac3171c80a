"""A service of several event loops on one port, with one pool for all of them.

Two reader loops receive uploads into pooled buffers. They hand each one to a worker loop, which hashes it and puts the
buffer back. So the buffers collect in the shard of the worker's processor, and the readers steal them from there.
"""

import asyncio
import hashlib
import random
import socket
import struct
from concurrent.futures import Future
from contextlib import suppress

from aiopool import Pool

LENGTH = struct.Struct("!I")
MAX_BODY = 64 * 1024
READERS, ROUNDS, CLIENTS = 2, 20, 4

buffers = Pool(lambda: bytearray(MAX_BODY), name="upload buffers")


async def finish(buffer: bytearray, size: int) -> bytes:
    """On the worker's loop: the digest of an upload. The buffer goes back."""
    digest = hashlib.sha256(memoryview(buffer)[:size]).digest()
    # asyncio runs this in the reader's context. The pool goes by the thread: the buffer goes to the worker's shard.
    buffers.put(buffer)
    return digest


async def receive(client: socket.socket, view: memoryview) -> None:
    while view:
        count = await asyncio.get_running_loop().sock_recv_into(client, view)
        if not count:
            raise ConnectionError("the client left in the middle of an upload")
        view = view[count:]


async def answer(client: socket.socket, worker: asyncio.AbstractEventLoop) -> None:
    """On a reader's loop: one upload. A client that leaves or stalls does not affect the others."""
    with client, suppress(OSError):
        async with asyncio.timeout(10):
            header = bytearray(LENGTH.size)
            await receive(client, memoryview(header))
            (size,) = LENGTH.unpack(header)
            if size > MAX_BODY:
                return
            # Not borrow(), because the worker puts the buffer back. If the upload fails first, the buffer is dropped.
            buffer = buffers.get()
            await receive(client, memoryview(buffer)[:size])
            digest = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(finish(buffer, size), worker))
            await asyncio.get_running_loop().sock_sendall(client, digest)


async def serve(listener: socket.socket, worker: asyncio.AbstractEventLoop, stop: Future[None]) -> None:
    async def accept() -> None:
        while True:
            client, _ = await asyncio.get_running_loop().sock_accept(listener)
            uploads.create_task(answer(client, worker))

    with listener:
        listener.setblocking(False)
        async with asyncio.TaskGroup() as uploads:
            accepting = uploads.create_task(accept())
            # Shielded, because cancelling a wrapped future cancels it for the other loops too.
            await asyncio.shield(asyncio.wrap_future(stop))
            accepting.cancel()


def listen() -> list[socket.socket]:
    """One listening socket for each reader, all on one port."""
    # With SO_REUSEPORT the kernel distributes connections over the readers. Without it, all readers share one queue.
    reuse = hasattr(socket, "SO_REUSEPORT")
    listeners = [socket.create_server(("127.0.0.1", 0), reuse_port=reuse)]
    address = listeners[0].getsockname()
    while len(listeners) < READERS:
        listeners.append(socket.create_server(address, reuse_port=True) if reuse else listeners[0].dup())
    return listeners


async def upload(address: tuple[str, int]) -> None:
    body = random.randbytes(random.randint(0, MAX_BODY))
    reader, writer = await asyncio.open_connection(*address)
    writer.write(LENGTH.pack(len(body)) + body)
    if await reader.read() != hashlib.sha256(body).digest():
        raise RuntimeError(f"wrong answer to an upload of {len(body)} bytes")
    writer.close()
    await writer.wait_closed()


async def run_clients(address: tuple[str, int]) -> None:
    async with asyncio.timeout(30):
        for _ in range(ROUNDS):
            await asyncio.gather(*(upload(address) for _ in range(CLIENTS)))


async def main() -> None:
    """The worker's loop. The readers and the clients have threads and loops of their own."""
    worker = asyncio.get_running_loop()
    stop: Future[None] = Future()
    listeners = listen()
    address = listeners[0].getsockname()
    readers = [worker.run_in_executor(None, asyncio.run, serve(listener, worker, stop)) for listener in listeners]
    try:
        await worker.run_in_executor(None, asyncio.run, run_clients(address))
    finally:
        stop.set_result(None)
        await asyncio.gather(*readers)
    print(f"{ROUNDS * CLIENTS} uploads on one port, each answered with the right digest")
    for each in buffers.stats().processors:
        role = "worker" if each.puts else "reader"
        hits = f"{each.private} private, {each.shared} shared, {each.stolen} stolen, {each.victim} victim"
        counts = f"{each.puts} puts, {each.gets} gets, {each.created} created"
        print(f"processor {each.id}, a {role}: {counts}; hits: {hits}")


if __name__ == "__main__":
    asyncio.run(main())
