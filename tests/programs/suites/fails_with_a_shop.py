"""A test that fails, and the next."""

from shop import events


def test_fails(shop):
    shop.orders.append(1)
    assert shop.broken


def test_next(shop):
    assert not shop.orders
    assert events == ["created", "reset"]
