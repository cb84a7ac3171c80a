"""What the tests of the C extension share."""

import pytest


@pytest.fixture
def native(aiopool):
    """The C extension."""
    if aiopool.implementation == "python":
        pytest.skip("it is about the types in C")
    return aiopool._native.native
