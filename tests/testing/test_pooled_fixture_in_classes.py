"""`pooled_fixture` on factories that are defined in a class."""

import re

import pytest

HEAD = """
import pytest
from aiopool.testing import pooled_fixture

created = []

@pytest.fixture(scope="session")
def town():
    return "Ghent"
"""


def test_a_static_method(suite):
    program = """
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
    pass

def test_one_object_for_all():
    assert created == ["Ghent"]
"""
    suite.write(test_shop=HEAD + program)
    suite.run(passed=5)


def test_a_class_method_has_an_object_for_each_class(suite):
    program = """
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
"""
    suite.write(test_shop=HEAD + program)
    suite.run(passed=5)


def test_a_function_without_arguments_is_as_good_as_a_static_method(suite):
    program = """
class TestShop:
    @pooled_fixture
    async def shop():
        return 1

    def test_one(self, shop):
        assert shop == 1
"""
    suite.write(test_shop=HEAD + program)
    suite.run(passed=1)


@pytest.mark.parametrize("name", ["self", "cls"])
@pytest.mark.parametrize("arguments", ["", "(loop_bound=True)"])
def test_a_method_is_rejected_with_advice(suite, name, arguments):
    program = f"""
class TestShop:
    @pooled_fixture{arguments}
    async def shop({name}, town): pass

    def test_one(self, shop): pass
"""
    suite.write(test_shop=HEAD + program)
    output = suite.run(errors=1)
    assert "_pooled_fixture.py" not in output
    (error,) = re.findall(r"^E   TypeError: (.*)", output, re.M)
    assert error == (
        f"TestShop.shop takes {name}, but the object of a pooled fixture serves tests of many instances. "
        f"Write @staticmethod below @pooled_fixture and leave out {name}, or write @classmethod and use cls"
    )
