"""One of two modules with fixtures of the same names, and a test of a fixture of the conftest."""

import pytest

from aiopool.testing import pooled_fixture

TOWN = {"test_a": "Ghent", "test_b": "Utrecht"}[__name__]


@pytest.fixture(scope="session")
def town():
    return TOWN


@pooled_fixture
async def shop(town):
    yield town


def test_one(shop):
    assert shop == TOWN


def test_two(shop):
    assert shop == TOWN


def test_shared(shared):
    assert shared == TOWN
