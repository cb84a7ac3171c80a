"""A factory without arguments, in a class."""

from aiopool.testing import pooled_fixture


class TestShop:
    @pooled_fixture
    async def shop():
        return 1

    def test_one(self, shop):
        assert shop == 1
