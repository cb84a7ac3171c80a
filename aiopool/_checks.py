"""Bad input, turned down with the value in the message and what would be right."""

import operator
from math import isnan
from reprlib import Repr
from typing import Any, NoReturn

# An idle buffer of a megabyte must not fill a traceback, nor an object whose repr raises hide the error that names it.
_short = Repr()
_short.maxother = 80
shown = _short.repr


def digits(number: int) -> str:
    """`number` for a message. One too long to be read has no decimal digits, says Python, and raises ValueError."""
    return str(number) if number.bit_length() <= 256 else f"a number of {number.bit_length()} bits"


def callable_or_none(what: str, value: Any) -> Any:
    """`value`, if it can be called or is `None`."""
    if value is None or callable(value):
        return value
    raise TypeError(f"{what} must be callable or None, not {shown(value)}")


def natural(what: str, value: Any) -> int:
    """`value`, if it is an integer that is not negative."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an integer, not {shown(value)}") from None
    if count < 0:
        raise ValueError(f"{what} must not be negative, but is {digits(count)}")
    return count


def seconds(what: str, value: Any) -> float:
    """`value`, if it is a number greater than 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number of seconds or None, not {shown(value)}")
    if isnan(value) or value <= 0:
        raise ValueError(f"{what} must be more than 0 seconds, but is {value}; None switches it off")
    return float(value)


def refuse_copy(pool: object, contents: str) -> NoReturn:
    """Where copying and pickling of a pool both end."""
    raise TypeError(
        f"cannot copy or pickle {pool!r}: its {contents} belong to this process; "
        f"share the pool itself between threads, and make one in each process"
    )
