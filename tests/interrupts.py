"""Run an operation many times, and interrupt it at a different bytecode each time.

A finalizer, a signal handler or another thread can run between any two bytecodes, and an error that needs an
interruption at one specific bytecode may take years to appear. `at_every_bytecode` monitors the operation's bytecodes
and, in each run, runs the intruder to its end before one of them (in one "gap"). So the checks after each run hold for
every possible single interruption.
"""

import asyncio
import importlib.util
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from types import CodeType, FrameType
from typing import Any

Check = Callable[[Any, Any], None]
Scenario = Callable[[], tuple[Callable[[], Any], Callable[[], Any], Check]]


_spec = importlib.util.find_spec("aiopool")
assert _spec is not None
assert _spec.origin is not None
PACKAGE = (os.fspath(Path(_spec.origin).parent) + os.sep,)
"""For `files`: only the modules of the package, whatever the name of the checkout."""


def core_files(*modules: str) -> tuple[str, ...]:
    """For `files`: these modules of the package's core."""
    return tuple([os.path.join("_core", f"{module}.py") for module in modules])


def at_every_bytecode(scenario: Scenario, *, files: tuple[str, ...], into: bool = False) -> int:
    """Interrupt at each bytecode in files whose path contains one of `files`. Returns the number of interruptions.

    If the intruder raises, the test fails; with `into`, the exception is raised in the operation instead, as by a
    signal handler.

    `scenario()` does the set-up for one run, and returns the operation, the intruder, and the check, which is called
    with the results of both.
    """
    gap = _Gap(files, into)
    with gap.watching():
        # CPython 3.12 and later report the bytecodes of a function only from its second call on.
        gap.run(scenario()[0], -1, lambda: None)
        for at in itertools.count():
            operation, intruder, check = scenario()
            result = gap.run(operation, at, intruder)
            check(result, gap.intrusion)
            if not gap.reached:
                return at
    raise AssertionError("unreachable")


class _Gap:
    """The gap before one bytecode of the running operation."""

    def __init__(self, files: tuple[str, ...], into: bool) -> None:
        self._files = files
        self._into = into
        self._thread = get_ident()
        self._left: int | None = None
        self._intruder: Callable[[], Any] = lambda: None
        self._error: BaseException | None = None
        self.reached = False
        self.intrusion: Any = None

    def run(self, operation: Callable[[], Any], at: int, intruder: Callable[[], Any]) -> Any:
        """Run `operation`, call `intruder` before its bytecode number `at`, and return the operation's result."""
        self._intruder, self.reached, self.intrusion = intruder, False, None
        self._left = at
        try:
            result = operation()
        finally:
            self._left = None
        if self._error is not None:
            raise self._error
        return result

    def _before_bytecode(self) -> None:
        if self._left == 0 and get_ident() == self._thread:
            self._left = None
            self.reached = True
            try:
                self.intrusion = self._intruder()
            except BaseException as error:
                if self._into:
                    raise
                self._error = error  # raised here, it would look as if the operation had raised it
        elif self._left is not None and get_ident() == self._thread:
            self._left -= 1

    def _is_ours(self, code: CodeType) -> bool:
        return any(part in code.co_filename for part in self._files)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Monitor bytecodes during a block."""
        watch = self._monitoring if sys.version_info >= (3, 12) else self._tracing
        with watch():
            yield

    @contextmanager
    def _monitoring(self) -> Iterator[None]:
        def on_instruction(code: CodeType, offset: int) -> Any:
            if not self._is_ours(code):
                return monitoring.DISABLE
            self._before_bytecode()
            return None

        monitoring = sys.monitoring
        tool = monitoring.DEBUGGER_ID
        monitoring.use_tool_id(tool, "interrupts")
        monitoring.register_callback(tool, monitoring.events.INSTRUCTION, on_instruction)
        monitoring.restart_events()
        monitoring.set_events(tool, monitoring.events.INSTRUCTION)
        try:
            yield
        finally:
            monitoring.set_events(tool, 0)
            monitoring.free_tool_id(tool)

    @contextmanager
    def _tracing(self) -> Iterator[None]:
        def on_call(frame: FrameType, event: str, arg: object) -> Any:
            if not self._is_ours(frame.f_code):
                return None
            frame.f_trace_opcodes = True
            return on_opcode

        def on_opcode(frame: FrameType, event: str, arg: object) -> Any:
            if event == "opcode":
                self._before_bytecode()
            return on_opcode

        before = sys.gettrace()
        sys.settrace(on_call)
        try:
            yield
        finally:
            sys.settrace(before)


class Interrupted(BaseException):
    """The exception that a signal handler raises."""


def raise_in_every_gap_on_a_loop(set_up: Callable[[], tuple[Any, Any]], *, files: tuple[str, ...]) -> int:
    """Raise an exception in an operation at each bytecode, each time on a new loop. Returns the number of gaps.

    `set_up()` returns two async functions: the operation, and a function that must succeed afterwards on the same loop.
    """
    runners: list[asyncio.Runner] = []

    async def run(operation: Any) -> None:
        # Otherwise asyncio's report of an exception in a callback would hold its frames and their objects.
        asyncio.get_running_loop().set_exception_handler(_forget_frames)
        await operation()

    def raises() -> None:
        raise Interrupted

    def scenario() -> Any:
        operation, afterwards = set_up()
        runners.append(asyncio.Runner())

        def interrupted() -> None:
            try:
                runners[-1].run(run(operation))
            except Interrupted as interruption:
                interruption.with_traceback(None)

        def check(result: Any, intrusion: Any) -> None:
            with runners.pop() as runner:
                runner.run(afterwards())

        return interrupted, raises, check

    try:
        return at_every_bytecode(scenario, files=files, into=True)
    finally:
        for runner in runners:
            runner.close()


def _forget_frames(loop: object, context: dict[str, Any]) -> None:
    context["exception"].with_traceback(None)
