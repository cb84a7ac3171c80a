"""A factory that fails for one value of the parameter that it needs."""

import pytest

from aiopool.testing import pooled_fixture

calls = []


@pytest.fixture(scope="session", params=["Ghent", "Utrecht", "Bruges"])
def town(request):
    return request.param


@pooled_fixture
async def shop(town):
    calls.append(town)
    if town == "Utrecht":
        raise ConnectionError(f"no shop in {town}")
    return town


@pooled_fixture
async def other():
    return 1


@pytest.mark.parametrize("number", range(3))
def test_it(shop, town, number, other):
    assert shop == town


def test_calls():
    assert calls == ["Ghent", "Utrecht", "Bruges"]
