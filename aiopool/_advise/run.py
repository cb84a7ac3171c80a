"""Starts the measuring processes, and shows progress."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from .._child_process import child_process
from .allocators import allocator, tuning
from .results import Measured, Results
from .user_code import UserCode, UserCodeError


class MeasuringError(Exception):
    """The measuring process ended without an answer."""


def measure_all(code: UserCode, seconds: float, console: Console) -> Results:
    """Measure with the allocator in use, and again with it tuned, if that is possible. Takes about `seconds` in total.

    :raises UserCodeError: the user's code failed.
    :raises MeasuringError: the measuring process ended without an answer.
    """
    settings = tuning()
    runs = [(f"measuring with {allocator()}", {}), *([("measuring with it tuned", settings)] if settings else [])]
    measured = []
    for title, environment in runs:
        with _shown(console, title) as progress:
            measured.append(_measure(code, seconds / len(runs), environment, progress))
    return Results(code.create, allocator(), measured[0], measured[1] if settings else None, settings)


class _shown:  # noqa: N801 - used as a function
    """A bar on a terminal; one line without control codes in a pipe or a log."""

    def __init__(self, console: Console, title: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20))
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(title, total=1.0)
        if not console.is_terminal:
            console.print(title + " …")

    def __enter__(self) -> Callable[[float], None]:
        self._bar.start()
        return lambda share: self._bar.update(self._task, completed=share)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _measure(code: UserCode, seconds: float, settings: dict[str, str], progress: Callable[[float], None]) -> Measured:
    with child_process(
        [sys.executable, "-m", f"{__package__}.process"],
        env={**os.environ, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # if it ended, so does its output
            json.dump({"code": code._asdict(), "seconds": seconds}, stdin)
        for line in process.stdout:
            answer = json.loads(line)
            if "done" in answer:
                progress(answer["done"])
            else:
                return _measured(answer)
        raise MeasuringError(f"the measuring process ended with exit code {process.wait()}")


def _measured(answer: dict[str, Any]) -> Measured:
    if "error" in answer:
        raise UserCodeError(answer["error"])
    return Measured.from_plain(answer["measured"])
