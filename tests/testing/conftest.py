"""Runs the suites of `tests/programs/suites` with pytest, as a user would run them."""

import contextlib
import importlib
import os
import shutil
import sys
from types import ModuleType

import pytest
from children import CHILD_LIMIT
from shared import PROGRAMS

SUITES = PROGRAMS / "suites"

# Only these plugins; plain asserts, because no plugin needs its asserts rewritten.
OPTIONS = [
    *("-p", "pytest_aiopool", "-p", "asyncio", "-p", "anyio", "-p", "xdist", "-p", "timeout", "-p", "no:cacheprovider"),
    "--assert=plain",
]

# pytest unloads the modules that such a suite imported; importing these each time would take a second.
for name in ("pytest_asyncio", "anyio.pytest_plugin", "anyio._backends._asyncio", "anyio._backends._trio", "uvloop"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)

INI = """
[pytest]
asyncio_default_fixture_loop_scope = function
filterwarnings = default
{}
"""


class Suite:
    """Puts suites together and runs them, with one implementation of the package."""

    def __init__(self, aiopool: ModuleType, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pytester = pytester
        self.path = pytester.path
        monkeypatch.setenv("AIOPOOL_NO_EXTENSIONS", "1" if aiopool.implementation == "python" else "")
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        # Under a CI pytest prints each whole message a second time, in its summary.
        for name in ("CI", "BUILD_NUMBER"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*filter(None, sys.path), str(PROGRAMS), str(SUITES)]))
        monkeypatch.syspath_prepend(SUITES)  # for modules that the suites share
        # A suite that runs in this process imports its own copy.
        for name in [name for name in sys.modules if name.partition(".")[0] in ("aiopool", "pytest_aiopool")]:
            monkeypatch.delitem(sys.modules, name)

    def write(self, *ini: str, **programs: str) -> None:
        """Write the lines of the ini file, and each module: a copy of a program of `tests/programs/suites`."""
        self._pytester.makefile(".ini", pytest=INI.format("\n".join(ini)))
        for module, program in programs.items():
            shutil.copy(SUITES / f"{program}.py", self.path / f"{module}.py")

    def run(self, *options: str, **outcomes: int) -> str:
        """Run pytest in this process, and check the outcomes; returns what pytest prints."""
        return self._checked(self._pytester.runpytest_inprocess(*OPTIONS, *options), outcomes)

    def run_apart(self, *options: str, **outcomes: int) -> str:
        """The same in a process of its own."""
        return self._checked(self._pytester.runpytest_subprocess(*OPTIONS, *options), outcomes)

    def run_program(self, name: str, *options: str, **outcomes: int) -> str:
        """The same for a suite in `tests/programs`."""
        self.write()
        return self._checked(
            self._pytester.runpytest_subprocess(*OPTIONS, *options, PROGRAMS / name, timeout=CHILD_LIMIT), outcomes
        )

    def run_without_plugin(self, *options: str, **outcomes: int) -> str:
        """The same, with only the plugins that `options` and the suite load."""
        self._pytester.makefile(".ini", pytest="[pytest]")
        return self._checked(self._pytester.runpytest_subprocess(*options), outcomes)

    def rejected(self) -> str:
        """What pytest prints if it rejects the suite and runs no test."""
        return self._pytester.runpytest_inprocess(*OPTIONS).stderr.str()

    def _checked(self, result: pytest.RunResult, outcomes: dict[str, int]) -> str:
        output = result.stdout.str() + result.stderr.str()
        assert result.parseoutcomes() == outcomes, output
        return output


@pytest.fixture
def suite(aiopool: ModuleType, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Writes a suite and runs it."""
    return Suite(aiopool, pytester, monkeypatch)
