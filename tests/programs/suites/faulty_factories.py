"""Factories that raise, that yield too little or too much, and that raise at the end."""

from aiopool.testing import pooled_fixture


@pooled_fixture
async def no_shop():
    raise ConnectionError("no shop today")


@pooled_fixture
async def nothing():
    if False:
        yield


@pooled_fixture
async def twice():
    yield 1
    yield 2


@pooled_fixture
async def bad_end():
    yield 1
    raise RuntimeError("cannot close")


def test_no_shop(no_shop):
    """Has an error."""


def test_nothing(nothing):
    """Has an error."""


def test_twice(twice):
    """Passes; the session's end has an error."""


def test_bad_end(bad_end):
    """Passes; the session's end has another."""
