"""A test that leaks, fails, and has a teardown that fails."""

import pytest
from frames import pool


@pytest.fixture
def broken():
    yield
    raise RuntimeError("teardown failed")


def test_failing(broken):
    pool.get()
    pytest.fail("on purpose")
