"""A pooled fixture, and a test that uses it."""

import pytest

from aiopool.testing import pooled_fixture


@pytest.fixture(scope="session")
def town():
    return "Ghent"


@pooled_fixture
async def shop(town):
    return town


def test_shop(shop):
    assert shop == "Ghent"
