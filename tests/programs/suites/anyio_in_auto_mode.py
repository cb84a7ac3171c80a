"""A test without the marker of any plugin."""


async def test_anyio(shop, anyio_backend):
    assert not shop.orders
    shop.orders.append(1)
