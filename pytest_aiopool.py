"""What pytest loads of aiopool at the start of every run: names, and nothing behind them.

pytest imports the plugins of all installed packages, whether a suite needs them or not. So this module stands outside
of the package, whose import would bring all pools and asyncio along, and imports what it offers when a suite uses it.
What that is stands in `aiopool.testing` and `aiopool.pytest_plugin`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aiopool._pooled_fixture import Residents


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ini option."""
    parser.addini(
        "aiopool_leaks", "what to do if a test got an object and did not put it back: off, warn or error", default="off"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker; and the leak check, if all tests are to have it."""
    config.addinivalue_line(
        "markers", "aiopool_leaks(mode): as the ini option aiopool_leaks (off, warn or error), for one test"
    )
    if config.getini("aiopool_leaks") != "off":
        _check_leaks(config)


def pytest_collection_finish(session: pytest.Session) -> None:
    """The leak check, if one test is to have it."""
    if any(item.get_closest_marker("aiopool_leaks") is not None for item in session.items):
        _check_leaks(session.config)


def _check_leaks(config: pytest.Config) -> None:
    from aiopool.pytest_plugin import LeakCheck

    if not config.pluginmanager.has_plugin("aiopool-leaks"):
        config.pluginmanager.register(LeakCheck(config), "aiopool-leaks")


@pytest.fixture
def aiopool_isolated() -> Iterator[None]:
    """Every pool is empty when the test begins, and afterwards as it was before."""
    from aiopool.testing import isolated

    with isolated():
        yield


@pytest.fixture(scope="session")
def _aiopool_residents(request: pytest.FixtureRequest) -> Iterator[Residents]:
    from aiopool._pooled_fixture import Residents

    residents = Residents(request)
    yield residents
    residents.close()
