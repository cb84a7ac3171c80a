"""The place where the user's code called a pool, for the debug mode and for the holders of buffers."""

import sys
from types import FrameType
from typing import NamedTuple

_PACKAGE = __name__.partition(".")[0]


class Place(NamedTuple):
    """A line of the code that calls the pool."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}, in {self.function}"


def caller() -> Place:
    """The innermost line of the user's code on the stack, which called the pool."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_in_between(frame):
        frame = frame.f_back
    if frame is None:
        return Place("<no Python code>", 0, "<unknown>")
    return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)


def _is_in_between(frame: FrameType) -> bool:
    # If an ExitStack enters a borrow, report the code that uses the stack.
    return (frame.f_globals.get("__package__") or "").partition(".")[0] == _PACKAGE or frame.f_globals.get(
        "__name__"
    ) == "contextlib"
