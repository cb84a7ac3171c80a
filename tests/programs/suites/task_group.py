"""A task group around the yield, in which a task fails after the second test if $BURNS is set."""

import asyncio
import os

from shop import Shop, say

from aiopool.testing import pooled_fixture


async def reset(shop):
    if shop.broken:
        shop.order.set()
        await asyncio.sleep(0.01)


@pooled_fixture(reset=reset)
async def shop():
    shop = Shop()

    async def sell():
        await shop.order.wait()
        if shop.broken:
            raise RuntimeError("the shop burned down")

    async with asyncio.TaskGroup() as group, asyncio.timeout(100):
        shop.order = asyncio.Event()
        group.create_task(sell())
        say("created")
        yield shop
        shop.order.set()
    say("torn down")


def test_one(shop):
    """Does not change it."""


def test_other(shop):
    shop.broken = "BURNS" in os.environ


def test_next(shop):
    assert not shop.broken
