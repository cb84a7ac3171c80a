"""Suites of `tests/programs/suites`, which a test has pytest run as a user would run them."""

import contextlib
import importlib
import os
import shutil
import sys
from types import ModuleType

import pytest
from shared import PROGRAMS

SUITES = PROGRAMS / "suites"

# Only these plugins; the asserts of no plugin need be rewritten.
OPTIONS = [
    *("-p", "pytest_aiopool", "-p", "asyncio", "-p", "anyio", "-p", "xdist", "-p", "timeout", "-p", "no:cacheprovider"),
    "--assert=plain",
]

# pytest takes out of this process what such a suite imported; these would take a second each time.
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
        # Under a CI pytest prints the whole of each message a second time, in its summary.
        for name in ("CI", "BUILD_NUMBER"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*filter(None, sys.path), str(PROGRAMS), str(SUITES)]))
        monkeypatch.syspath_prepend(SUITES)  # what programs there share
        # A suite that is run in this process imports a copy of its own.
        for name in [name for name in sys.modules if name.partition(".")[0] in ("aiopool", "pytest_aiopool")]:
            monkeypatch.delitem(sys.modules, name)

    def write(self, *ini: str, **programs: str) -> None:
        """The lines of the ini file, and what each module is: a program of `tests/programs/suites`."""
        self._pytester.makefile(".ini", pytest=INI.format("\n".join(ini)))
        for module, program in programs.items():
            shutil.copy(SUITES / f"{program}.py", self.path / f"{module}.py")

    def run(self, *options: str, **outcomes: int) -> str:
        """What pytest prints, in this process, if the tests come out as expected."""
        return self._checked(self._pytester.runpytest_inprocess(*OPTIONS, *options), outcomes)

    def run_apart(self, *options: str, **outcomes: int) -> str:
        """The same in a process of its own."""
        return self._checked(self._pytester.runpytest_subprocess(*OPTIONS, *options), outcomes)

    def run_program(self, name: str, *options: str, **outcomes: int) -> str:
        """The same of a suite that lies in `tests/programs`."""
        self.write()
        return self._checked(
            self._pytester.runpytest_subprocess(*OPTIONS, *options, PROGRAMS / name, timeout=120), outcomes
        )

    def run_without_plugin(self, *options: str, **outcomes: int) -> str:
        """The same, with only the plugins that `options` and the suite load."""
        self._pytester.makefile(".ini", pytest="[pytest]")
        return self._checked(self._pytester.runpytest_subprocess(*options), outcomes)

    def refused(self) -> str:
        """What pytest prints that runs no test."""
        return self._pytester.runpytest_inprocess(*OPTIONS).stderr.str()

    def _checked(self, result: pytest.RunResult, outcomes: dict[str, int]) -> str:
        output = result.stdout.str() + result.stderr.str()
        assert result.parseoutcomes() == outcomes, output
        return output


@pytest.fixture
def suite(aiopool: ModuleType, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """To write a suite and run it."""
    return Suite(aiopool, pytester, monkeypatch)
