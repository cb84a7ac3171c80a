"""A pooled fixture instead of a session fixture."""

from link import Link
from shop import say

from aiopool.testing import pooled_fixture


@pooled_fixture(loop_bound=True)
async def link():
    say("created")
    yield Link()
