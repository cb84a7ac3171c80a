"""A pooled fixture with a reset and a teardown."""

import asyncio

from shop import Shop, say

from aiopool.testing import pooled_fixture


async def reset(shop):
    say("reset")
    shop.orders.clear()
    return not shop.broken


@pooled_fixture(reset=reset)
async def shop():
    """A shop that is expensive."""
    say("created")
    await asyncio.sleep(0)
    yield Shop()
    await asyncio.sleep(0)
    say("torn down")
