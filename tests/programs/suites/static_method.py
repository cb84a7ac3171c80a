"""A factory that is a static method: one object for all classes."""

import pytest

from aiopool.testing import pooled_fixture

created = []


@pytest.fixture(scope="session")
def town():
    return "Ghent"


class TestShop:
    @pooled_fixture
    @staticmethod
    async def shop(town):
        created.append(town)
        return [town]

    def test_one(self, shop):
        assert shop == ["Ghent"]

    def test_two(self, shop):
        assert shop == ["Ghent"]


class TestMore(TestShop):
    """The same tests again."""


def test_one_object_for_all():
    assert created == ["Ghent"]
