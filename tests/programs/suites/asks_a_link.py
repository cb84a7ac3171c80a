"""Tests on loops of their own that use the object of a fixture."""

import pytest
from link import Link

from aiopool.testing import LoopBound


@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(2))
async def test_link(link, number):
    assert await (link.run(Link.ask) if isinstance(link, LoopBound) else link.ask()) == 42
