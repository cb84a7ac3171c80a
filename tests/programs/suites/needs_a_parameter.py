"""A factory that needs a fixture with parameters."""

import pytest
from shop import say

from aiopool.testing import pooled_fixture


@pytest.fixture(scope="session", params=["Ghent", "Utrecht"])
def town(request):
    say(f"+ {request.param}")
    yield request.param
    say(f"- {request.param}")


@pooled_fixture
async def shop(town, request, number=1):
    assert request.scope == "session"
    say(f"created in {town}")
    yield (town, number)
    say(f"torn down in {town}")


def test_one(shop, town):
    assert shop == (town, 1)


def test_two(shop, town):
    assert shop == (town, 1)
