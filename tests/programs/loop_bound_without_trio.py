"""Runs the tests of loop-bound pools as in a program that does not use trio, where the C extension has a fast path."""

import sys

import pytest


class WithoutTrio:
    """Unloads trio, which the modules of the tests import, before each test."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self):
        for name in [name for name in sys.modules if name.partition(".")[0] == "trio"]:
            del sys.modules[name]


# The last ones need Python code that can be interrupted, and the fast path has none.
selected = "native and not trio and not guest and not anyio_event and not interruption"
options = ["-q", "-p", "no:cacheprovider", "-k", selected]
code = pytest.main([*options, *sys.argv[1:]], plugins=[WithoutTrio()])
if code != pytest.ExitCode.OK:
    sys.exit(f"pytest ended with {code!r}")
