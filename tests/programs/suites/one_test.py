"""A test in another module."""


def test_next():
    """Passes."""
