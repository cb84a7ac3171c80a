"""A factory and a teardown that raise what would end the loop or its task: `SystemExit` or, by $FAILURE, another."""

import asyncio
import os
import sys

from aiopool.testing import pooled_fixture


def fail():
    if os.environ["FAILURE"] == "exit":
        sys.exit(3)
    raise asyncio.CancelledError


@pooled_fixture
async def works():
    return 1


@pooled_fixture
async def shop():
    fail()


@pooled_fixture
async def bad_end():
    yield 1
    fail()


def test_works(works):
    """Passes."""


def test_shop(shop):
    """Has an error."""


def test_bad_end(bad_end):
    """Passes; the session's end has an error."""


def test_still_works(works):
    """Passes."""
