"""Which implementation is in use: chosen once, when the package is imported.

The compiled twin is optional. Where it could not be built, or `AIOPOOL_NO_EXTENSIONS` is set to anything, every module
uses its own Python classes, which give the same answers.
"""

import os
from types import ModuleType

native: ModuleType | None = None
if not os.environ.get("AIOPOOL_NO_EXTENSIONS"):
    try:
        from . import _native as native  # type: ignore[attr-defined, no-redef]
    except ImportError:
        pass  # it was not built

implementation = "python" if native is None else "native"
"""Which implementation is in use: "native" or "python"."""
