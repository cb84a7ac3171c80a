"""Helpers for the tests of the debug mode: objects of several kinds, the warnings, and how messages name a line."""

from contextlib import contextmanager
from pathlib import Path

from shared import Thing


class Bare:
    """An object that does not support weak references, like a bytearray."""

    __slots__ = ("other",)


KINDS = [Thing, Bare, bytearray, list]


@contextmanager
def debug_mode(aiopool):
    """Debug mode during a block, for pools that were created before."""
    aiopool._debug.turn_on()
    try:
        yield
    finally:
        aiopool._debug.turn_off()


class Texts:
    """The texts of the caught warnings, which must all be ResourceWarnings."""

    def __init__(self, caught):
        self._caught = caught

    def all(self):
        assert all(each.category is ResourceWarning for each in self._caught)
        return [str(each.message) for each in self._caught]

    def one(self):
        (text,) = self.all()
        return text


def line(function, text):
    """The number of the line of `function` that has `text`."""
    code = function.__code__
    lines = Path(code.co_filename).read_text(encoding="utf-8").splitlines()
    return next(number for number in range(code.co_firstlineno, len(lines)) if text in lines[number - 1])


def place(function, text):
    """The text by which messages name that line."""
    return f"{function.__code__.co_filename}:{line(function, text)}, in {function.__qualname__}"
