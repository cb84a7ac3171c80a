"""The other end of `streams.py`: a process that sends length-prefixed frames, as many and as large as requested.

A connection begins with a request: what to send, the size of each and how many. Frames and lines follow at once, with
many small ones in each send; with `TURNS` the process sends each received frame back. The client ends the connection.
The arguments are the file descriptor of a listening socket and, for TLS, the file with key and certificate.
"""

import socket
import ssl
import struct
import sys

REQUEST = struct.Struct("!BQQ")
FRAMES, LINES, TURNS = range(3)
HEADER = struct.Struct("!I")

BATCH = 256 * 1024
"""Bytes in each send, if frames are smaller."""


def serve(listener: socket.socket, tls: ssl.SSLContext | None) -> None:
    """Answer one connection after another, until the process is killed."""
    while True:
        plain, _ = listener.accept()
        with plain:
            try:
                with plain if tls is None else tls.wrap_socket(plain, server_side=True) as connection:
                    answer(connection)
            except OSError:
                pass  # the client has closed the connection


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
    connection.recv(1)  # the client closes first, when it has everything


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
