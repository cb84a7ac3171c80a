"""A pooled fixture in the place of one for the session."""

from link import Link
from shop import say

from aiopool.testing import pooled_fixture


@pooled_fixture(loop_bound=True)
async def link():
    say("made")
    yield Link()
