"""The servers of `uvicorn_uploads.py`: uvicorn, with an application that reads each upload to its end.

Usage: _upload_server.py LOOP HTTP FILENO, where FILENO is a listening socket. Under /whole the application joins the
body as frameworks do for `request.body()`, under /stream it reads each piece and drops it. Under /cpu it answers with
the CPU time of the process, in seconds.
"""

import resource
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    pieces = []
    count = 0
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        count += len(message["body"])
        more = message["more_body"]
        if scope["path"] == "/whole":
            pieces.append(message["body"])
    if scope["path"] == "/whole":
        count = len(b"".join(pieces))
    content = b"%d" % count
    if scope["path"] == "/cpu":
        usage = resource.getrusage(resource.RUSAGE_SELF)
        content = b"%.6f" % (usage.ru_utime + usage.ru_stime)
    headers = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


if __name__ == "__main__":
    loop, http, fileno = sys.argv[1:]
    config = uvicorn.Config(
        application,
        http=http,
        loop=loop,
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(fileno))])
