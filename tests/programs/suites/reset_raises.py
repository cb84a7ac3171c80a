"""A reset that raises."""

from shop import Shop, events, say

from aiopool.testing import pooled_fixture


def reset(shop):
    if shop.orders:
        raise RuntimeError("cannot undo orders")


@pooled_fixture(reset=reset)
async def shop():
    yield Shop()
    say("torn down")


def test_one(shop):
    shop.orders.append(1)


def test_two(shop):
    assert not shop.orders
    assert events == ["torn down"]
