"""The other end of `streams.py`: a process that sends length-prefixed frames, as many and as big as it is asked for.

A connection begins with a request: the size of a frame and how many to send. The frames follow at once, small ones many
to a send; the client ends the connection. To run it: give it the file descriptor of a listening socket, and the file
with key and certificate if it is to speak TLS.
"""

import socket
import ssl
import struct
import sys

REQUEST = struct.Struct("!QQ")
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
    size, count = REQUEST.unpack(connection.recv(REQUEST.size))
    frame = HEADER.pack(size) + bytes(size)
    together = max(1, min(count, BATCH // len(frame)))
    batch = frame * together
    for _ in range(count // together):
        connection.sendall(batch)
    connection.sendall(frame * (count % together))
    connection.recv(1)  # the client goes first: it has all then


def main() -> None:
    descriptor, *certificate = sys.argv[1:]
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate[0])
    serve(socket.socket(fileno=int(descriptor)), tls)


if __name__ == "__main__":
    main()
