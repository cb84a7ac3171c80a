"""The choice between the C extension and pure Python, made once, when the package is imported.

The C extension is optional. If it was not built, or `AIOPOOL_NO_EXTENSIONS` is set, the Python versions of all classes
are used, which give the same answers. `AIOPOOL_REQUIRE_NATIVE` turns that into an error, for programs that should fail
rather than be slow. Each class and function that also exists in C has one of the two decorators below. No other code
makes this choice.
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
        # A plain import statement, so that tools that freeze programs (PyInstaller, for example) find the extension.
        from . import _extension  # type: ignore[attr-defined, unused-ignore]

        native = _extension
    except ImportError as error:
        # A missing module and one that does not load raise the same kind of ImportError.
        missing = find_spec(f"{__name__}._extension") is None
        _reason = "it was not built" if missing else f"it does not load ({error})"


def _is_stale(module: ModuleType) -> bool:
    """Whether `module` was built from other C sources than those in this folder. False in a wheel, which has none."""
    sources = sorted(Path(__file__).parent.glob("*.[ch]"))
    # The same checksum as in setup.py.
    return bool(sources) and getattr(module, "source", None) != crc32(b"".join(map(Path.read_bytes, sources))) & (
        0x7FFFFFFF
    )


if native is not None and _is_stale(native):
    # The Python modules might fail on missing names or, worse, work with code that behaves differently.
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
    """The class or function of the same name from the C extension, if that is in use; otherwise `python`."""
    chosen: C = getattr(native, python.__name__, python)
    return chosen


def with_c_methods(python: C) -> C:
    """Replace methods of the class `python` with those that exist in C, if the extension is in use.

    They are set on the class itself and not on a base class, because CPython's fast calls of C methods require that the
    method belongs to the object's own type. Each keeps the signature and docstring of the Python method it replaces.
    """
    if native is None:
        return python
    for name in native.methods(python):
        method = vars(python)[name]
        text = f"{name}{_text_signature(method)}\n--\n\n{method.__doc__ or ''}"
        setattr(python, name, native.method_descriptor(python, name, text))
    return python


def _text_signature(method: Any) -> str:
    """The signature as C methods have it: without annotations, and with a `$` before `self`."""
    signature = inspect.signature(method)
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return text.replace("(self", "($self", 1)


def has_gil() -> bool:
    """Whether the GIL is enabled now. Importing an extension module that needs it may enable it."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()
