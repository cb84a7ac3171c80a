"""Fixtures of the tests of the C extension."""

import pytest


@pytest.fixture
def native(aiopool):
    """The C extension."""
    if aiopool.implementation == "python":
        pytest.skip("the test is about the types in C")
    return aiopool._native.native
