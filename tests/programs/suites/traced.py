"""Errors at every place where a suite's own code runs."""

import asyncio

import pytest

from aiopool.testing import pooled_fixture


def breaks():
    raise LookupError("broken")


async def breaks_later(shop=None):
    await asyncio.sleep(0)
    breaks()


@pooled_fixture
async def failing():
    await breaks_later()


@pooled_fixture(reset=breaks_later)
async def shop():
    return 1


@pooled_fixture(reset=lambda shop: False)
async def bad_end():
    yield 1
    await breaks_later()


@pooled_fixture(loop_bound=True)
async def bound():
    return 1


def test_factory(failing):
    """Has an error."""


def test_factory_again(failing):
    """Has the same error."""


def test_reset(shop):
    """Has an error afterwards."""


def test_teardown(bad_end):
    """Has an error afterwards."""


def test_run_sync(bound):
    bound.run_sync(breaks_later)


@pytest.mark.asyncio
async def test_run(bound):
    await bound.run(breaks_later)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_run_on_trio(bound):
    await bound.run(breaks_later)
