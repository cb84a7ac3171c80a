"""Which implementation is in use: chosen once, when the package is imported.

The compiled twin is optional. Where it could not be built, or `AIOPOOL_NO_EXTENSIONS` is set to anything, every module
uses its own Python classes, which give the same answers.
"""

import os
import sys
import warnings
from binascii import crc32
from importlib import import_module
from pathlib import Path
from types import ModuleType


def _is_current(module: ModuleType) -> bool:
    """Whether `module` was built from the C source beside it. An installed wheel has none, and can't become stale."""
    sources = sorted(Path(__file__).parent.glob("_native*.[ch]"))
    # As in setup.py.
    return not sources or getattr(module, "source", None) == crc32(b"".join(map(Path.read_bytes, sources))) & 0x7FFFFFFF


def _load() -> ModuleType | None:
    try:
        module = import_module("._native", __package__)
    except ModuleNotFoundError:
        return None  # it was not built
    except ImportError as error:
        reason = f"does not load ({error})"
    else:
        if _is_current(module):
            return module
        reason = "was built from another _native.c"
    # The modules would fail on what it lacks, or worse, not fail on what it does differently.
    warnings.warn(
        f"The compiled part of aiopool {reason}, so the Python implementation is used. Install aiopool again, in a "
        "checkout with: pip install -e .",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


native: ModuleType | None = None if os.environ.get("AIOPOOL_NO_EXTENSIONS") else _load()


def has_gil() -> bool:
    """Whether a GIL is at work now. Importing an extension that needs one may bring it back."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


implementation = "python" if native is None else "native"
"""Which implementation is in use: "native" or "python"."""
