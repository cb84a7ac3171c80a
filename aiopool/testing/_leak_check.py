"""The leak check: reports a test that got an object and did not put it back, with the line of the get.

To report the right test, each get is recorded with its owner. This is the test that is running, from its set-up to the
end of its teardown; or a fixture that lives longer than one test, during its set-up. The objects of such a fixture are
checked when it ends.

There is one case that cannot be distinguished. If a longer-lived fixture leaves a task running on the test's own loop,
the gets of that task are attributed to the test that runs meanwhile. Loops of other threads that ran before the test
began are ignored.
"""

from collections.abc import Iterator
from threading import get_ident
from typing import Any

import pytest

from .. import _debug
from .._core.processor import processors
from .._debug import _records
from .._debug._records import Record

MODES = ("off", "warn", "error")


class LeakCheck:
    """The hooks that pytest calls, if a test suite uses the leak check."""

    def __init__(self, config: pytest.Config) -> None:
        self._default: str = config.getini("aiopool_leaks")
        if self._default not in MODES:
            raise pytest.UsageError(f"aiopool_leaks must be off, warn or error, not {self._default!r}")
        # Objects leaked by fixtures that ended since the last report, with a description of the fixture.
        self._left: dict[Record, str] = {}
        self._other_loops: set[int | None] = set()
        _debug.turn_on()

    def validate(self, items: list[pytest.Item]) -> None:
        """Reject invalid markers."""
        for item in items:
            self._mode(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """Attribute gets to the test from now on."""
        checked = self._mode(item) != "off"
        _records.getting_for = item
        _records.keeps_lost = checked
        self._other_loops = {processor.thread_id for processor in processors()} - {get_ident()}
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        """Attribute the gets of a fixture that lives longer than the test to the fixture."""
        if fixturedef.scope == "function":
            return (yield)
        with _records.getting_on_behalf_of(fixturedef):
            return (yield)

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Note the objects that an ended fixture did not put back."""
        for record in list(_records.checked_out):
            if record.owner is fixturedef:
                self._left[record] = f"{fixturedef.argname} ({fixturedef.scope} scope)"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        """Report the objects that are not back after the test's fixtures have been torn down."""
        try:
            result = yield
        except BaseException as error:
            report = self._report(item)
            if report:
                error.add_note(report)
            raise
        report = self._report(item)
        if report and self._mode(item) == "error":
            pytest.fail(report, pytrace=False)
        if report:
            item.warn(pytest.PytestWarning(report))
        return result

    def _mode(self, item: pytest.Item) -> str:
        marker = item.get_closest_marker("aiopool_leaks")
        if marker is None:
            return self._default
        if len(marker.args) != 1 or marker.kwargs or marker.args[0] not in MODES:
            raise pytest.UsageError(
                f'{item.nodeid}: aiopool_leaks takes "off", "warn" or "error", not {marker.args} {marker.kwargs}'
            )
        mode: str = marker.args[0]
        return mode

    def _report(self, item: pytest.Item) -> str:
        """Describe the objects that were not put back. Each is reported once."""
        _records.keeps_lost = False
        _records.getting_for = None
        lines = []
        for record in list(_records.checked_out):
            if record.owner is item and record.thread_id not in self._other_loops:
                lines.append(f"  {record}")
            elif record in self._left:
                lines.append(f"  {record}, for the fixture {self._left[record]}")
            else:
                continue
            _records.checked_out.pop(record, None)
        self._left.clear()
        if not lines or self._mode(item) == "off":
            return ""
        return "\n".join(["aiopool: got and not put back by the end of the test:", *lines])
