"""The reset of the first test's object fails."""

from shop import events


def test_breaks_it(shop):
    shop.broken = True


def test_has_another(shop):
    assert not shop.broken
    assert events == ["created", "reset", "torn down", "created"]
