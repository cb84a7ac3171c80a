"""Runs the script in another process, and explains everything that can go wrong."""

import marshal
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil  # type: ignore[import-untyped]

from .wake import interrupt_wait

BUDGET = 0.0002
"""Seconds after which the script reads no further pool."""

WAKE_AFTER = 0.02
"""Seconds after which a process that has not answered is assumed to be waiting for something."""

PATIENCE = 5.0
"""Seconds that a process may take to answer."""


class LookError(Exception):
    """A process cannot be inspected. The message is one line that says why and what to do."""


class Process:
    """Another process. Data is exchanged in a folder that only its user and we can read. Use this in a `with` block."""

    def __init__(self, pid: int) -> None:
        """Prepare to inspect the process with `pid`.

        :raises LookError: there is no such process, or this Python cannot inspect other processes.
        """
        if not hasattr(sys, "remote_exec"):
            version = ".".join(map(str, sys.version_info[:3]))
            raise LookError(f"this is Python {version}: only CPython 3.14 and later can inspect another process")
        self.pid = pid
        self._check_alive()
        self._folder = tempfile.TemporaryDirectory(prefix="aiopool-top-")
        source = Path(__file__).with_name("look.py").read_text(encoding="utf-8")
        # Without docstrings: the process has to read it all, each time.
        self._code = marshal.dumps(compile(source, "aiopool top", "exec", dont_inherit=True, optimize=2))
        self._looks = 0
        try:
            self._give(self._folder.name)
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def look(self) -> list[dict[str, Any]]:
        """Return the statistics of all pools, in one or more parts.

        :raises LookError: the process cannot be inspected.
        """
        parts: list[dict[str, Any]] = []
        start = 0
        while True:
            part = self._look_at_some(start)
            parts.append(part)
            start += len(part["pools"])
            if part["left"] <= 0 or not part["pools"]:
                return parts

    def _look_at_some(self, start: int) -> dict[str, Any]:
        self._looks += 1
        script = Path(self._folder.name, f"look{self._looks}.py")
        answer = script.with_suffix(".answer")
        call = f"look({start}, {BUDGET}, {os.fspath(answer)!r})"
        # In a dict of its own as globals, so that the script leaves no names behind.
        script.write_text(f"import marshal; g = {{}}; exec(marshal.loads({self._code!r}), g); exec({call!r}, g)\n")
        self._give(script)
        self._send(script)
        try:
            self._wait(answer.exists)
        except LookError:
            self._take_back()
            raise
        seen: dict[str, Any] = marshal.loads(answer.read_bytes())
        answer.unlink()
        script.unlink()
        if "no aiopool" in seen:
            raise LookError(f"process {self.pid} has not imported aiopool")
        if "error" in seen:
            raise LookError(f"process {self.pid} uses a version of aiopool that this one cannot read: {seen['error']}")
        return seen

    def _give(self, path: "str | Path") -> None:
        """Let the process access `path`, if the process belongs to another user."""
        if not hasattr(os, "geteuid"):
            return
        try:
            uid = psutil.Process(self.pid).uids().effective
        except psutil.NoSuchProcess:
            raise self._gone() from None
        if uid == os.geteuid():
            return
        try:
            os.chown(path, uid, -1)
        except PermissionError:
            raise self._not_allowed() from None

    def _send(self, script: Path) -> None:
        try:
            sys.remote_exec(self.pid, script)  # type: ignore[attr-defined, unused-ignore] # pyright: ignore
        except PermissionError:
            raise self._not_allowed() from None
        except (OSError, RuntimeError) as error:
            self._check_alive()
            raise LookError(self._explained(error)) from error

    def _take_back(self) -> None:
        """Withdraw the script, which will be deleted before the process may get to run it."""
        try:
            sys.remote_exec(self.pid, os.devnull)  # type: ignore[attr-defined, unused-ignore] # pyright: ignore
        except (OSError, RuntimeError):
            pass  # it has ended

    def _wait(self, done: Callable[[], bool]) -> None:
        start = time.monotonic()
        woken = False
        while not done():
            self._check_alive()
            waited = time.monotonic() - start
            if waited > PATIENCE:
                raise LookError(
                    f"process {self.pid} did not answer for {PATIENCE:.0f} seconds: its main thread runs no Python "
                    "code (it may sleep, wait for a lock, or be in an idle uvloop); try again when it is busy"
                )
            if waited > WAKE_AFTER and not woken:
                woken = True
                interrupt_wait(self.pid)
            time.sleep(0.001 if waited < 0.1 else 0.02)

    def _check_alive(self) -> None:
        try:
            if psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE:
                return
        except (psutil.NoSuchProcess, ValueError, OverflowError):
            pass
        raise self._gone()

    def _gone(self) -> LookError:
        if getattr(self, "_looks", 0):
            return LookError(f"process {self.pid} has ended")
        return LookError(f"there is no process with the PID {self.pid}")

    def _not_allowed(self) -> LookError:
        return LookError(
            f"no permission to inspect process {self.pid}: run this as root; or as the same user, if "
            "/proc/sys/kernel/yama/ptrace_scope is 0"
        )

    def _explained(self, error: Exception) -> str:
        text = str(error)
        if "not enabled" in text:
            return (
                f"process {self.pid} does not allow it: start it without PYTHON_DISABLE_REMOTE_DEBUG and "
                "without -X disable-remote-debug"
            )
        if "PyRuntime" in text:
            return f"process {self.pid} does not run CPython {sys.version_info.major}.{sys.version_info.minor}"
        if "main thread" in text:
            return f"the main thread of process {self.pid} has ended: only a main thread can be inspected"
        return f"process {self.pid} cannot be inspected: {text}"
