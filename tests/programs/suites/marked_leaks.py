"""Leaks of tests with markers."""

import pytest
from frames import pool


@pytest.mark.aiopool_leaks("error")
def test_error():
    pool.get()


@pytest.mark.aiopool_leaks("warn")
def test_warn():
    pool.get()


def test_default():
    pool.get()


@pytest.mark.aiopool_leaks("off")
class TestOff:
    def test_off(self):
        pool.get()
