"""A marker with a mode that there is not."""

import pytest


@pytest.mark.aiopool_leaks("yes")
def test_marked():
    """Is not run."""
