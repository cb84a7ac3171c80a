"""Factories that need other fixtures: one of the session, and one that ends too early."""

import pytest
from shop import Shop, say

from aiopool.testing import pooled_fixture


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    yield tmp_path_factory.mktemp("shop")
    say("address gone")


@pytest.fixture
def short():
    """Ends with its test."""


@pooled_fixture
async def shop(address):
    yield (Shop(), address)
    say("torn down")


@pooled_fixture
async def wrong(short):
    """Is rejected."""


def test_shop(shop):
    assert shop[1].exists()


def test_wrong(wrong):
    """Has an error."""
