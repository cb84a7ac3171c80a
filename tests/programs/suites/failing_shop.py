"""A factory that fails, in the way that $FAILURE says, and a hundred tests that need its object.

It is called once, or $CALLS times.
"""

import asyncio
import os
import unittest

import pytest

from aiopool.testing import pooled_fixture

calls = []


@pooled_fixture
async def shop():
    calls.append("shop")
    await asyncio.sleep(0)
    match os.environ["FAILURE"]:
        case "an error":
            raise ConnectionError("no shop today")
        case "pytest.skip":
            pytest.skip("no shop here")
        case "SkipTest":
            raise unittest.SkipTest("no shop here")
        case "pytest.fail":
            pytest.fail("no shop today", pytrace=False)


@pytest.mark.parametrize("number", range(100))
def test_it(shop, number):
    """Has the error of the factory."""


def test_calls():
    assert len(calls) == int(os.environ.get("CALLS", "1"))
