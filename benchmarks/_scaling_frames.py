"""Frames that several loops receive at the same time, for `scaling.py`.

Each loop has a socket pair of its own. It writes a batch of frames to one end and reads them at the other, over
streams, so no other process needs a core. The figures include sending, which is the same for both readers.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from itertools import repeat
from typing import Any

from _scaling_case import Case

from aiopool import streams

HEADER = 4
FRAMES = 50
"""Frames in a batch. All of them fit into the socket's buffer."""


class Receiving(Case):
    """Frames of `size` bytes, each read with `readexactly`, its header and then its body."""

    def __init__(self, name: str, open_connection: Callable[..., Awaitable[tuple[Any, Any]]], size: int) -> None:
        super().__init__(name, self.receive, FRAMES)
        self._open = open_connection
        self._batch = (size.to_bytes(HEADER, "big") + bytes(size)) * FRAMES
        self._each = threading.local()

    async def receive(self, n: int) -> None:
        """`n` batches, over the running loop's own connection."""
        if not hasattr(self._each, "connection"):
            self._each.connection = await self.connect()
        sender, reader, _ = self._each.connection
        batch = self._batch
        for _ in repeat(None, n):
            sender.sendall(batch)
            for _ in repeat(None, FRAMES):
                length = int.from_bytes(await reader.readexactly(HEADER), "big")
                await reader.readexactly(length)

    async def connect(self) -> tuple[socket.socket, Any, Any]:
        sender, receiver = socket.socketpair()
        return sender, *await self._open(sock=receiver)


RECEIVING = [
    Receiving("frames of 64 B, aiopool", streams.open_connection, 64),
    Receiving("frames of 1 KiB, aiopool", streams.open_connection, 1024),
    Receiving("frames of 64 B, StreamReader", asyncio.open_connection, 64),
    Receiving("frames of 1 KiB, StreamReader", asyncio.open_connection, 1024),
]
