"""What many tests need: something to pool, and which build of CPython this is."""

import sys
import sysconfig
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
"""Programs that tests run in interpreters of their own."""

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
"""Whether this is a free-threaded build: its reference counts and its collector are others, with and without a GIL."""

NO_GIL = not getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether there is no GIL now: importing an extension that needs it may bring it back on a free-threaded build."""


class Thing:
    """Something to pool that can be referenced weakly."""
