"""An upload service on uvicorn whose large request bodies are received into pooled buffers.

The application is plain ASGI, like that of every framework: it does not know the pool. To start it from the command
line: `uvicorn uvicorn_service:app --http aiopool.integrations.uvicorn:PooledHttpToolsProtocol`. Here a client in the
same program uploads files over loopback and checks each answer, and at the end the program prints what the pool did.

Needs the extra `uvicorn`.
"""

import asyncio
import hashlib
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from aiopool.integrations.uvicorn import PooledHttpToolsProtocol

UPLOADS, SIZE = 50, 1024 * 1024

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Read the request body piece by piece, and answer with its digest."""
    digest = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        digest.update(message["body"])
        more = message["more_body"]
    content = digest.hexdigest().encode()
    headers = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def upload(address: tuple[str, int]) -> None:
    """Upload random files over one connection, and check the answers."""
    with socket.create_connection(address) as connection, connection.makefile("rb") as answers:
        for _ in range(UPLOADS):
            body = random.randbytes(SIZE)
            connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % SIZE)
            connection.sendall(body)
            while answers.readline() != b"\r\n":
                pass  # the headers of the answer
            if answers.read(64).decode() != hashlib.sha256(body).hexdigest():
                raise RuntimeError("wrong answer")


async def main() -> None:
    config = uvicorn.Config(app, http=PooledHttpToolsProtocol, lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await asyncio.to_thread(upload, listening.getsockname())
        server.should_exit = True
        await serving
    stats = PooledHttpToolsProtocol.buffers.stats()
    print(f"{UPLOADS} uploads of {SIZE} bytes, each answered with the right digest")
    print(f"{stats.created} buffers created, {stats.bytes_in_use} bytes in use")


if __name__ == "__main__":
    asyncio.run(main())
