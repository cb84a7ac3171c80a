"""The first object ends by itself, between two tests."""

import asyncio
import threading
import time

from shop import Shop, events, say

from aiopool.testing import pooled_fixture

burned = threading.Event()


@pooled_fixture(reset=lambda shop: shop.fire.set())
async def shop():
    say("created")
    shop = Shop()

    async def burn():
        await shop.fire.wait()
        raise RuntimeError("the shop burned down")

    try:
        async with asyncio.TaskGroup() as group:
            shop.fire = asyncio.Event()
            if len(events) == 1:
                group.create_task(burn())
            yield shop
    finally:
        burned.set()


def test_one(shop):
    """The reset after it starts the fire."""


def test_between():
    assert burned.wait(30)
    time.sleep(0.05)  # for the rest of the task's last step


def test_cannot_have_it(shop):
    """Has an error."""


def test_has_another(shop):
    assert events == ["created", "created"]
