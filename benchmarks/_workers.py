"""Processes that measure in turns: one for each implementation of aiopool.

aiopool chooses its implementation when it is imported, so two implementations need two processes. To compare them, and
a program in Go, all of them measure one round, then all of them the next one. A worker between two requests waits for a
line on its standard input and uses no CPU time.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiopool

Message = dict[str, Any]

IMPLEMENTATIONS = ["native", "python"] if aiopool.implementation == "native" else ["python"]
"""The implementations that can be measured here. `AIOPOOL_NO_EXTENSIONS` leaves only the second one."""


class Worker:
    """A process that runs `program`, a module of this directory, with one implementation."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.about = self._receive()
        """The message that the worker sent when it was ready."""

    def round(self) -> Message:
        """Let the worker measure once."""
        assert self._process.stdin is not None
        print("round", file=self._process.stdin, flush=True)
        return self._receive()

    def _receive(self) -> Message:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._process.args!r} ended early, with {self._process.wait()}")
        message: Message = json.loads(line)
        return message


@contextmanager
def worker(program: str, implementation: str) -> Iterator[Worker]:
    """A worker that ends with the block."""
    environment = dict(os.environ)
    if implementation == "python":
        environment["AIOPOOL_NO_EXTENSIONS"] = "1"
        environment.pop("AIOPOOL_REQUIRE_NATIVE", None)
    command = [sys.executable, str(Path(__file__).with_name(program))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            ready = Worker(process)
            if ready.about["environment"]["implementation"] != implementation:
                sys.exit(f"{program} does not run with the {implementation} implementation: {ready.about}")
            yield ready
        finally:
            process.stdin.close()  # type: ignore[union-attr]  # there is one: it is a pipe


Reply = Callable[[Message], None]


def requests(about: Message) -> Iterator[Reply]:
    """In the worker: send `about`, then yield a function to answer with, once for each requested round.

    It blocks the running loop while it waits, on purpose: nothing else must run between two rounds.
    """
    # Output of a library must not get between the messages.
    stream, sys.stdout = sys.stdout, sys.stderr

    def reply(message: Message) -> None:
        print(json.dumps(message), file=stream, flush=True)

    reply(about)
    while sys.stdin.readline():
        yield reply
