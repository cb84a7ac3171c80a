"""An async fixture that is set up once and used by many tests, each of them on an event loop of its own.

Run it with `pytest examples/test_fixtures.py`, or as a program. pytest-asyncio makes a new loop for every test, and so
sets up every async fixture again. Here a pool keeps what the fixture gives out: `reset` makes it as good as new, and
the next test gets it on the next loop.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from aiopool import Pool, Processor, current_processor

pytestmark = pytest.mark.asyncio


class Shop:
    """Something that takes long to set up, and that tests change."""

    def __init__(self) -> None:
        self.stock = {f"item {number}": number % 10 for number in range(100_000)}
        self.orders: Counter[str] = Counter()
        self.closed = False

    async def order(self, item: str) -> None:
        await asyncio.sleep(0)
        if self.closed or self.orders[item] == self.stock[item]:
            raise LookupError(f"no {item} for sale")
        self.orders[item] += 1


def reset(shop: Shop) -> bool:
    """Undo what a test did. `False` if that is too much to undo: then the pool drops the shop."""
    shop.orders.clear()
    return not shop.closed


loops: list[asyncio.AbstractEventLoop] = []
processors: list[Processor | None] = []


@pytest.fixture(scope="module")
def shops() -> Iterator[Pool[Shop]]:
    pool = Pool(Shop, reset=reset, name="shops")
    yield pool
    stats = pool.stats()
    print(f"\n{stats.gets} tests on {len(set(loops))} loops and {len(set(processors))} processor")
    print(f"shops made: {stats.made}, hits: {stats.hits}, refused by reset: {stats.refused}")
    assert len(set(loops)) == len(loops) == stats.gets
    # One thread is one processor, however many loops it runs. So what the last test put is what the next one gets.
    assert len(set(processors)) == 1
    assert stats.made <= 1 + stats.refused


@pytest_asyncio.fixture
async def shop(shops: Pool[Shop]) -> AsyncIterator[Shop]:
    loops.append(asyncio.get_running_loop())
    processors.append(current_processor())
    # pytest does not raise a test's failure in its fixtures, so the block ends well and the shop comes back after any
    # test: only reset can tell whether it is still good.
    with shops.borrow() as shop:
        yield shop


@pytest.mark.parametrize("item", [f"item {number}" for number in range(1, 10)])
async def test_a_shop_starts_without_orders(shop: Shop, item: str) -> None:
    assert not shop.orders
    await shop.order(item)
    assert shop.orders == {item: 1}


async def test_an_item_sells_out(shop: Shop) -> None:
    await asyncio.gather(*(shop.order("item 3") for _ in range(3)))
    with pytest.raises(LookupError, match="no item 3 for sale"):
        await shop.order("item 3")


async def test_a_closed_shop_takes_no_orders(shop: Shop) -> None:
    shop.closed = True
    with pytest.raises(LookupError, match="no item 9 for sale"):
        await shop.order("item 9")


async def test_the_shop_after_a_closed_one_is_open(shop: Shop) -> None:
    await shop.order("item 9")


if __name__ == "__main__":
    # The warning would be that this program imported pytest_asyncio before pytest could rewrite its asserts.
    sys.exit(pytest.main([__file__, "--quiet", "--capture=no", "-W", "ignore:Module already imported"]))
