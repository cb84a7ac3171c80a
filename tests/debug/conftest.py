"""The package in debug mode, and its warnings."""

import warnings

import pytest
from observed import Texts


@pytest.fixture
def debugging(aiopool):
    """The package in debug mode."""
    aiopool._debug.turn_on()
    yield aiopool
    aiopool._debug.turn_off()


@pytest.fixture
def said():
    """The texts of warnings and of unraisable exceptions."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield Texts(caught)
