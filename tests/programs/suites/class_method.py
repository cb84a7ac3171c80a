"""A factory that is a class method: an object for each class."""

import pytest

from aiopool.testing import pooled_fixture

created = []


@pytest.fixture(scope="session")
def town():
    return "Ghent"


class TestShop:
    name = "shop"

    @pooled_fixture(reset=lambda shop: created.append("reset"))
    @classmethod
    async def shop(cls, town):
        created.append(cls)
        yield f"{cls.name} in {town}"

    def test_one(self, shop):
        assert shop == f"{self.name} in Ghent"

    def test_two(self, shop):
        assert shop == f"{self.name} in Ghent"


class TestStall(TestShop):
    name = "stall"


def test_one_object_for_each():
    assert created == [TestShop, "reset", "reset", TestStall, "reset", "reset"]
