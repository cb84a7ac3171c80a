"""NumPy arrays from one process to another: pickled without a copy, and received into pooled buffers.

pickle protocol 5 leaves the contents of arrays out of the pickle and hands them over as buffers (`buffer_callback`).
So a message is a header, the pickle, and each buffer as it lies in memory. `readexactly` returns a view of a pooled
buffer for each, and pickle creates arrays in those buffers (`buffers=`): only the kernel copies anything, the arrays
are writable, and a buffer is reused when the last array in it is gone.

A pickle runs code when it is loaded: receive only from your own processes, as here over a Unix socket in a folder that
no other user can enter.

Needs numpy. Runs on uvloop where that is installed.
"""

import asyncio
import multiprocessing
import pickle
import struct
import tempfile
from asyncio import StreamWriter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np

from aiopool import BufferPool, streams

new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
try:
    from uvloop import new_event_loop as new_loop
except ImportError:
    pass  # asyncio's own loop will do

COUNTS, SIZE = struct.Struct("!II"), struct.Struct("!Q")
MAX_BYTES, MAX_BUFFERS = 64 * 1024 * 1024, 1000
MESSAGES = 20

buffers = BufferPool(max_size=MAX_BYTES, max_idle_bytes=4 * MAX_BYTES, name="arrays")


async def send(writer: StreamWriter, obj: Any) -> None:
    """Send `obj`. Its arrays must not change until the peer has them: the transport sends from their memory."""
    found: list[pickle.PickleBuffer] = []
    head = pickle.dumps(obj, protocol=5, buffer_callback=found.append)
    views = [each.raw() for each in found]
    sizes = b"".join(SIZE.pack(view.nbytes) for view in views)
    writer.write(COUNTS.pack(len(head), len(views)) + sizes + head)
    for view in views:
        writer.write(view)
        await writer.drain()


async def receive(reader: streams.StreamReader) -> Any:
    """The next object that the peer sent.

    :raises asyncio.IncompleteReadError: the peer has closed the connection.
    :raises ValueError: the peer announces too many buffers or bytes.
    """
    head_size, count = COUNTS.unpack(await reader.readexactly(COUNTS.size))
    if head_size > MAX_BYTES or count > MAX_BUFFERS:
        raise ValueError(f"a pickle of {head_size} bytes with {count} buffers is too big")
    sizes = [size for (size,) in SIZE.iter_unpack(await reader.readexactly(count * SIZE.size))]
    if sum(sizes) > MAX_BYTES:
        raise ValueError(f"arrays of {sum(sizes)} bytes are too big")
    head = await reader.readexactly(head_size)
    return pickle.loads(head, buffers=[await reader.readexactly(size) for size in sizes])


async def serve(path: Path, ready: Callable[[], None]) -> None:
    """Double every array from one client, in place, and send it back."""
    done = asyncio.Event()

    async def double(reader: streams.StreamReader, writer: StreamWriter) -> None:
        try:
            while True:
                message = await receive(reader)
                message["array"] *= 2  # writable, where it was received
                await send(writer, message)
        except asyncio.IncompleteReadError:
            pass  # the client has finished
        writer.close()
        done.set()

    async with await streams.start_unix_server(double, path, buffers=buffers):
        ready()
        await done.wait()


async def send_arrays(path: Path) -> None:
    reader, writer = await streams.open_unix_connection(path, buffers=buffers)
    random = np.random.default_rng(1)
    for number in range(MESSAGES):
        array = random.random(random.integers(1, MAX_BYTES // 16))
        await send(writer, {"number": number, "array": array, "mask": array > 0.5})
        answer = await receive(reader)
        if answer["number"] != number or not np.array_equal(answer["array"], array * 2):
            raise RuntimeError(f"array {number} came back as something else")
        if not (answer["array"].flags.writeable and np.array_equal(answer["mask"], array > 0.5)):
            raise RuntimeError(f"array {number} came back as something else")
    writer.close()
    await writer.wait_closed()


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)


def run_server(path: Path, ready: Any) -> None:
    run(serve(path, lambda: ready.send(True)))


def main() -> None:
    processes = multiprocessing.get_context("spawn")
    starting, ready = processes.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "arrays")
        server = processes.Process(target=run_server, args=(path, ready), daemon=True)
        server.start()
        ready.close()  # so that the server has the only other end: if it fails to start, `recv` raises EOFError
        starting.recv()
        run(send_arrays(path))
        server.join()
    stats = buffers.stats()
    print(f"arrays: {MESSAGES} there and back, each doubled and writable")
    print(f"buffers: {stats.served} views, {stats.created} of them of fresh blocks")


if __name__ == "__main__":
    main()
