"""The first object serves one test; then the factory fails, and does not run again."""

import pytest

from aiopool.testing import pooled_fixture

calls = []


@pooled_fixture(reset=lambda shop: False)
async def shop():
    calls.append("shop")
    if len(calls) > 1:
        raise ConnectionError("no second shop")


@pytest.mark.parametrize("number", range(4))
def test_it(shop, number):
    """The first passes."""


def test_calls():
    assert len(calls) == 2
