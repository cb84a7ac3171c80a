"""An async fixture that is set up once and used by many tests, each of them on an event loop of its own.

Run it with `pytest examples/test_fixtures.py`, or as a program. pytest-asyncio creates a new loop for every test, and
so sets up every async fixture again. Here `pooled_fixture` keeps the object that the fixture yields: `reset` restores
it, and the next test gets it on the next loop.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from aiopool.testing import pooled_fixture

pytest_plugins = ["pytest_aiopool"]  # only needed where aiopool is in the path but not installed
pytestmark = pytest.mark.asyncio

events: Counter[str] = Counter()
loops: list[asyncio.AbstractEventLoop] = []


class Shop:
    """An object that takes long to set up, and that tests change."""

    def __init__(self) -> None:
        self.stock = {f"item {number}": number % 10 for number in range(100_000)}
        self.orders: Counter[str] = Counter()
        self.closed = False

    async def order(self, item: str) -> None:
        await asyncio.sleep(0)
        if self.closed or self.orders[item] == self.stock[item]:
            raise LookupError(f"no {item} for sale")
        self.orders[item] += 1


async def reset(shop: Shop) -> bool:
    """Undo the changes of a test. Returns `False` if it cannot: then the next test gets another shop."""
    events["reset"] += 1
    shop.orders.clear()
    return not shop.closed


@pytest.fixture(scope="session")
def town() -> Iterator[str]:
    yield "Utrecht"
    print(f"\n{len(loops)} tests on {len(set(loops))} loops")
    print(f"shops opened: {events['opened']}, reset: {events['reset']}, closed down: {events['closed down']}")
    assert len(set(loops)) == len(loops) == events["reset"]
    assert events["opened"] == events["closed down"] <= 2


@pooled_fixture(reset=reset)
async def shop(town: str) -> AsyncIterator[Shop]:
    await asyncio.sleep(0.02)
    events["opened"] += 1
    yield Shop()
    events["closed down"] += 1


@pytest.mark.parametrize("item", [f"item {number}" for number in range(1, 10)])
async def test_a_shop_starts_without_orders(shop: Shop, item: str) -> None:
    loops.append(asyncio.get_running_loop())
    assert not shop.orders
    await shop.order(item)
    assert shop.orders == {item: 1}


async def test_an_item_sells_out(shop: Shop) -> None:
    loops.append(asyncio.get_running_loop())
    await asyncio.gather(*(shop.order("item 3") for _ in range(3)))
    with pytest.raises(LookupError, match="no item 3 for sale"):
        await shop.order("item 3")


async def test_a_closed_shop_takes_no_orders(shop: Shop) -> None:
    loops.append(asyncio.get_running_loop())
    shop.closed = True
    with pytest.raises(LookupError, match="no item 9 for sale"):
        await shop.order("item 9")


async def test_the_shop_after_a_closed_one_is_open(shop: Shop) -> None:
    loops.append(asyncio.get_running_loop())
    await shop.order("item 9")


if __name__ == "__main__":
    # Ignored: a warning that this program imported aiopool before pytest could rewrite its asserts.
    sys.exit(pytest.main([__file__, "--quiet", "--capture=no", "-W", "ignore:Module already imported"]))
