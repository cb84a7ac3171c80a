"""A factory that succeeds at the third attempt."""

from aiopool.testing import pooled_fixture

calls = []


@pooled_fixture
async def shop():
    calls.append("shop")
    if len(calls) < 3:
        raise ConnectionError("not yet")


def test_one(shop):
    """Passes when it is repeated for the second time."""


def test_two(shop):
    """Gets the same object."""


def test_calls():
    assert len(calls) == 3
