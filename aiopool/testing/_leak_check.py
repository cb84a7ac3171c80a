"""The leak check: a test that got an object and did not put it back is told so, with the line that got it.

At the right test: so every get is entered for whom it was made, and not only when. That is the test that runs, from its
set-up to the end of its teardown; or a fixture that lives longer than a test, while that is set up. What such a fixture
got is looked at when it has ended.

One thing can't be told apart: what a task got that a longer-lived fixture left running on the test's own loop. It is
entered for the test that ran meanwhile. What other threads' loops do that ran before the test began is not the test's.
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
    """What pytest calls, once a suite asks for it."""

    def __init__(self, config: pytest.Config) -> None:
        self._default: str = config.getini("aiopool_leaks")
        if self._default not in MODES:
            raise pytest.UsageError(f"aiopool_leaks is off, warn or error, not {self._default!r}")
        # What fixtures left that have ended since the last look, and which fixture it was.
        self._left: dict[Record, str] = {}
        self._other_loops: set[int | None] = set()
        _debug.turn_on()

    def validate(self, items: list[pytest.Item]) -> None:
        """Turn down markers that say nothing."""
        for item in items:
            self._mode(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """From here on gets are the test's."""
        checked = self._mode(item) != "off"
        _records.getting_for = item
        _records.keeps_lost = checked
        self._other_loops = {processor.thread_id for processor in processors()} - {get_ident()}
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        """What lives longer than the test borrows for itself."""
        if fixturedef.scope == "function":
            return (yield)
        with _records.getting_on_behalf_of(fixturedef):
            return (yield)

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Now it should have put back everything."""
        for record in list(_records.checked_out):
            if record.owner is fixturedef:
                self._left[record] = f"{fixturedef.argname} ({fixturedef.scope} scope)"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        """Now the test should have, with all its fixtures torn down."""
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
        """What is not back, in words. It is told once."""
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
