"""A pooled fixture that borrows for the session."""

from frames import pool

from aiopool.testing import pooled_fixture


@pooled_fixture
async def frame():
    with pool.borrow() as obj:
        yield obj


def test_first(frame):
    """Passes."""


def test_second(frame):
    """Passes."""


def test_leaky(frame):
    pool.get()  # here
