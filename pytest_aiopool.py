"""The pytest plugin: a light module that imports the rest of `aiopool.testing` only when a test suite uses it.

pytest imports the plugins of all installed packages at the start of every run, even if the suite does not use them. So
this module is outside the package, whose import would load all pools and asyncio.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aiopool.testing._leak_check import LeakCheck
    from aiopool.testing._pooled_objects import PooledObjects


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option."""
    parser.addini(
        "aiopool_leaks",
        "what to do if a test gets an object and does not put it back: off, warn or error",
        default="off",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker, and the leak check if it is on for all tests."""
    config.addinivalue_line(
        "markers", "aiopool_leaks(mode): like the ini option aiopool_leaks (off, warn or error), for one test"
    )
    if config.getini("aiopool_leaks") != "off":
        _leak_check(config)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Add the leak check if it is on for single tests."""
    marked = [item for item in session.items if item.get_closest_marker("aiopool_leaks") is not None]
    if marked:
        _leak_check(session.config).validate(marked)


def _leak_check(config: pytest.Config) -> LeakCheck:
    from aiopool.testing._leak_check import LeakCheck

    check: LeakCheck | None = config.pluginmanager.get_plugin("aiopool-leaks")
    if check is None:
        check = LeakCheck(config)
        config.pluginmanager.register(check, "aiopool-leaks")
    return check


@pytest.fixture
def aiopool_isolated() -> Iterator[None]:
    """Make every pool empty during the test, and restore it afterwards."""
    from aiopool.testing import isolated

    with isolated():
        yield


@pytest.fixture(scope="session")
def _aiopool_objects(request: pytest.FixtureRequest) -> Iterator[PooledObjects]:
    from aiopool.testing._pooled_objects import PooledObjects

    objects = PooledObjects(request)
    yield objects
    objects.close()
