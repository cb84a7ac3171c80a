"""Fixtures of every scope that borrow, two of which leak."""

import pytest
import pytest_asyncio
from frames import pool


@pytest.fixture(scope="module")
def of_module():
    return pool.get()  # in of_module, never put


@pytest.fixture(scope="class")
def of_class():
    with pool.borrow() as obj:
        yield obj


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def of_loop():
    obj = pool.get()
    yield obj
    pool.put(obj)


@pytest.fixture
def of_test():
    obj = pool.get()
    yield obj
    pool.put(obj)


@pytest.fixture
def leaky():
    return pool.get()  # in leaky


class TestThem:
    def test_one(self, of_module, of_class, of_test):
        """Passes."""

    def test_two(self, of_module, of_class, of_test):
        """Passes."""


@pytest.mark.asyncio(loop_scope="module")
async def test_three(of_module, of_loop):
    """Passes."""


@pytest.mark.asyncio
async def test_four(of_module, of_loop, leaky):
    """Leaks."""


def test_five(of_module):
    """Passes."""


def test_last():
    """After it the module ends, and so do its fixtures."""
