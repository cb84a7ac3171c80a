"""Checks of arguments. The error messages show the wrong value and say what is right."""

import inspect
import operator
from math import isnan
from reprlib import Repr
from typing import Any, NoReturn

# Abbreviated, so that a long argument does not fill a traceback and a repr that raises does not hide the error.
_short = Repr()
_short.maxother = 80
shown = _short.repr


def identified(obj: object) -> str:
    """A pooled object for a message, without its contents, which may be a user's request."""
    return f"<{type(obj).__qualname__} object at {id(obj):#x}>"


def digits(number: int) -> str:
    """`number` for a message. Python raises ValueError when it converts a very large one to decimal digits."""
    return str(number) if number.bit_length() <= 256 else f"a number of {number.bit_length()} bits"


def callable_or_none(what: str, value: Any) -> Any:
    """`value`, if it is callable or `None`."""
    if value is None or callable(value):
        return value
    raise TypeError(f"{what} must be callable or None, not {shown(value)}")


def plain_callable_or_none(what: str, value: Any) -> Any:
    """`value`, if it is callable and not async, or is `None`."""
    call = getattr(type(value), "__call__", None)  # noqa: B004 - the function that a call of `value` runs
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(call):
        raise TypeError(f"{what} must not be async, as {shown(value)} is: AsyncPool takes async functions")
    return callable_or_none(what, value)


def name_or_none(value: Any) -> str | None:
    """`value`, if it is a string or `None`."""
    if value is None or isinstance(value, str):
        return value
    raise TypeError(f"name must be a string or None, not {shown(value)}")


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
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{what} must be a number of seconds or None, but is {digits(int(value))}") from None
    if isnan(number) or number <= 0:
        raise ValueError(f"{what} must be more than 0 seconds, but is {value}; None switches it off")
    return number


def refuse_copy(pool: object, contents: str) -> NoReturn:
    """Raise `TypeError`, because a pool can be neither copied nor pickled."""
    raise TypeError(
        f"cannot copy or pickle {pool!r}: its {contents} belong to this process; "
        f"share the pool itself between threads, and create one in each process"
    )
