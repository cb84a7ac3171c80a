"""All these tests run in one task, with one context: that of the fixture."""

import pytest
from frames import pool

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="module")
async def wide(anyio_backend):
    with pool.borrow() as obj:
        yield obj


async def test_good(wide):
    """Passes."""


async def test_leaky(wide):
    pool.get()  # here


async def test_after(wide):
    """Passes."""
