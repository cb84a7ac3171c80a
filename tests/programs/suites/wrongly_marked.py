"""A marker with an unknown mode."""

import pytest


@pytest.mark.aiopool_leaks("yes")
def test_marked():
    """Does not run."""
