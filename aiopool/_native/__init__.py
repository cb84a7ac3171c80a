"""Which implementation is in use: chosen once, here, when the package is imported.

The C extension is optional. Where it could not be built, or `AIOPOOL_NO_EXTENSIONS` is set, every class is the Python
one, which gives the same answers. `AIOPOOL_REQUIRE_NATIVE` turns that into an error, for programs that should fail
rather than be slow. Each class and function that also exists in C has one of the two decorators below; nothing else
makes a choice.
"""

import inspect
import os
import sys
import warnings
from binascii import crc32
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

C = TypeVar("C", bound=Callable[..., Any])

native: Any = None
"""The C extension, or `None`."""

_reason = "AIOPOOL_NO_EXTENSIONS is set"
if not os.environ.get("AIOPOOL_NO_EXTENSIONS"):
    try:
        # A plain import statement, so that tools that freeze programs find the extension.
        from . import _extension  # type: ignore[attr-defined, unused-ignore]

        native = _extension
    except ImportError as error:
        # A missing module raises the same kind of ImportError as one that does not load.
        missing = find_spec(f"{__name__}._extension") is None
        _reason = "it was not built" if missing else f"it does not load ({error})"


def _is_stale(module: ModuleType) -> bool:
    """Whether `module` was built from other C sources than those beside it. A wheel has none, and is never stale."""
    sources = sorted(Path(__file__).parent.glob("*.[ch]"))
    # As in setup.py.
    return bool(sources) and getattr(module, "source", None) != crc32(b"".join(map(Path.read_bytes, sources))) & (
        0x7FFFFFFF
    )


if native is not None and _is_stale(native):
    # The Python modules would fail on missing names or, worse, not fail where it behaves differently.
    native, _reason = None, "it was built from other C sources"

implementation = "python" if native is None else "native"
"""Which implementation is in use: "native" or "python"."""

if native is None and os.environ.get("AIOPOOL_REQUIRE_NATIVE"):
    raise ImportError(
        f"AIOPOOL_REQUIRE_NATIVE is set, but the C extension of aiopool cannot be used: {_reason}. Install aiopool "
        "again, with a C compiler, or unset the variable to use the Python implementation"
    )
if native is None and not _reason.startswith(("AIOPOOL", "it was not")):
    warnings.warn(
        f"The C extension of aiopool cannot be used: {_reason}. The Python implementation is used instead. Install "
        "aiopool again, in a checkout with: pip install -e .",
        RuntimeWarning,
        stacklevel=2,
    )


def in_c(python: C) -> C:
    """The class or function of the same name from the C extension, where it is in use; else `python`."""
    chosen: C = getattr(native, python.__name__, python)
    return chosen


def with_c_methods(python: C) -> C:
    """`python`, with those of its methods in C that the extension has, where it is in use.

    They are put into the class itself: CPython's shortcut for calls of C methods requires them to belong to the very
    type of the object. Each keeps the signature and the docstring of the Python method that it replaces.
    """
    if native is None:
        return python
    for name in native.methods(python):
        method = vars(python)[name]
        text = f"{name}{_text_signature(method)}\n--\n\n{method.__doc__ or ''}"
        setattr(python, name, native.method_descriptor(python, name, text))
    return python


def _text_signature(method: Any) -> str:
    """The signature in the form of C methods: without annotations, and with a `$` before `self`."""
    signature = inspect.signature(method)
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return text.replace("(self", "($self", 1)


def has_gil() -> bool:
    """Whether the GIL is enabled now. Importing an extension that needs it may enable it."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()
