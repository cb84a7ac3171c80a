"""The leak check: reports a test that got an object and did not put it back, with the line of the get.

To report the right test, it records on whose behalf each get is made, and not only when. That is the running test, from
its set-up to the end of its teardown; or, while a fixture that lives longer than a test is set up, that fixture. Such a
fixture is checked once it has ended.

One case cannot be told apart: a task that a longer-lived fixture left running on the test's own loop. What it gets is
recorded for the test that runs meanwhile. Gets by loops that other threads ran before the test began are not the
test's.
"""

from collections.abc import Iterator
from threading import get_ident
from typing import Any

import pytest

from .. import _debug, _loans
from .._loans import Entry
from .._processor import processors

MODES = ("off", "warn", "error")


class LeakCheck:
    """What pytest calls, once a suite asks for it."""

    def __init__(self, config: pytest.Config) -> None:
        self._default: str = config.getini("aiopool_leaks")
        if self._default not in MODES:
            raise pytest.UsageError(f"aiopool_leaks is off, warn or error, not {self._default!r}")
        # What fixtures did not put back that have ended since the last report, and the fixture.
        self._left: dict[Entry, str] = {}
        self._other_loops: set[int | None] = set()
        _debug.turn_on()

    def validate(self, items: list[pytest.Item]) -> None:
        """Reject markers with a wrong mode."""
        for item in items:
            self._mode(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """From here on, gets are the test's."""
        checked = self._mode(item) != "off"
        _loans.lending_for = item
        _loans.keeps_lost = checked
        self._other_loops = {processor.thread_id for processor in processors()} - {get_ident()}
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        """While a longer-lived fixture is set up, gets are the fixture's."""
        if fixturedef.scope == "function":
            return (yield)
        with _loans.lending_to(fixturedef):
            return (yield)

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """By now it should have put back everything."""
        for entry in list(_loans.lent):
            if entry.owner is fixturedef:
                self._left[entry] = f"{fixturedef.argname} ({fixturedef.scope} scope)"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        """By now so should the test, with all its fixtures torn down."""
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
        """The objects that are not back, in words; each is reported once."""
        _loans.keeps_lost = False
        _loans.lending_for = None
        lines = []
        for entry in filter(_loans.is_sure, list(_loans.lent)):
            if entry.owner is item and entry.thread_id not in self._other_loops:
                lines.append(f"  {entry}")
            elif entry in self._left:
                lines.append(f"  {entry}, for the fixture {self._left[entry]}")
            else:
                continue
            _loans.lent.pop(entry, None)
        self._left.clear()
        if not lines or self._mode(item) == "off":
            return ""
        return "\n".join(["aiopool: got and not put back by the end of the test:", *lines])
