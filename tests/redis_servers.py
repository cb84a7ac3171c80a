"""A real redis-server, for the tests that need one."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loops import wait_for_socket

NEEDS_REDIS_SERVER = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed (Debian has it)"
)


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[Path]:
    """Run a server with its files in `folder`; the path of its Unix socket. `options` must have `--port`."""
    path = folder / "socket"
    command = ["redis-server", "--unixsocket", str(path), "--save", "", "--dir", str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for_socket(path)
            yield path
        finally:
            process.terminate()
