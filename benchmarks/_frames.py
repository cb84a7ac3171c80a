"""The other end of `streams.py`: a process that sends length-prefixed frames, as many and as big as it is asked for.

A connection begins with a request: what to send, the size of each and how many. Frames and lines follow at once, small
ones many to a send; with `TURNS` each frame is sent back that comes in. The client ends the connection. To run it: give
it the file descriptor of a listening socket, and the file with key and certificate if it is to speak TLS.
"""

import socket
import ssl
import struct
import sys

REQUEST = struct.Struct("!BQQ")
FRAMES, LINES, TURNS = range(3)
HEADER = struct.Struct("!I")

BATCH = 256 * 1024
"""Bytes to a send, if frames are smaller."""


def serve(listener: socket.socket, tls: ssl.SSLContext | None) -> None:
    """Answer one connection after another, until nobody needs the answers any more."""
    while True:
        plain, _ = listener.accept()
        with plain:
            try:
                with plain if tls is None else tls.wrap_socket(plain, server_side=True) as connection:
                    answer(connection)
            except OSError:
                pass  # the client has seen enough


def answer(connection: socket.socket) -> None:
    kind, size, count = REQUEST.unpack(connection.recv(REQUEST.size))
    if kind == TURNS:
        send_back(connection, HEADER.size + size, count)
        return
    frame = HEADER.pack(size) + bytes(size) if kind == FRAMES else b"x" * (size - 1) + b"\n"
    together = max(1, min(count, BATCH // len(frame)))
    batch = frame * together
    for _ in range(count // together):
        connection.sendall(batch)
    connection.sendall(frame * (count % together))
    connection.recv(1)  # the client goes first: it has all then


def send_back(connection: socket.socket, size: int, count: int) -> None:
    frame = memoryview(bytearray(size))
    for _ in range(count):
        received = 0
        while received < size:
            received += connection.recv_into(frame[received:]) or size
        connection.sendall(frame)


def main() -> None:
    descriptor, *certificate = sys.argv[1:]
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate[0])
    serve(socket.socket(fileno=int(descriptor)), tls)


if __name__ == "__main__":
    main()
