"""Checks that an integration runs when it is imported, so that it either works or says why it cannot."""

import re
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any


def check_version(package: str, oldest: str, newest: str) -> None:
    """Accept versions of `package` from `oldest` to `newest`, with which an integration was tested.

    A newer version is used too, with a `RuntimeWarning`.

    :raises ImportError: the installed version is older.
    """
    found = version(package)
    if _numbers(found) < _numbers(oldest):
        raise ImportError(f"aiopool does not support {package} {found}: install {package} {oldest} or later")
    if _numbers(found)[: len(_numbers(newest))] > _numbers(newest):
        warnings.warn(
            f"aiopool was tested with {package} {oldest} to {newest}, not with {found}",
            RuntimeWarning,
            stacklevel=3,
        )


def check_names(package: str, function: Callable[..., Any], names: Iterable[str]) -> None:
    """Check that a `function` of `package` still uses the `names` that an integration relies on.

    :raises ImportError: it does not use one of these global names or attributes.
    """
    code = function.__code__
    missing = sorted(set(names) - {*code.co_names, *code.co_varnames, *code.co_freevars})
    if missing:
        raise ImportError(
            f"aiopool does not support {package} {version(package)}: {function.__qualname__} no longer uses "
            f"{', '.join(missing)}; install a version that aiopool's documentation lists"
        )


def _numbers(text: str) -> tuple[int, ...]:
    """The release numbers of a version, such as 0.34.1 for 0.34.1rc2."""
    release = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, release[0].split("."))) if release else ()
