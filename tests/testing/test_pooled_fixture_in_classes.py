"""`pooled_fixture` on factories that are defined in a class."""

import re

import pytest


def test_a_static_method(suite):
    suite.write(test_shop="static_method")
    suite.run(passed=5)


def test_a_class_method_has_an_object_for_each_class(suite):
    suite.write(test_shop="class_method")
    suite.run(passed=5)


def test_a_function_without_arguments_works_like_a_static_method(suite):
    suite.write(test_shop="function_in_a_class")
    suite.run(passed=1)


@pytest.mark.parametrize("name", ["self", "cls"])
@pytest.mark.parametrize("bound", [False, True], ids=["plain", "loop-bound"])
def test_a_method_is_rejected_with_advice(suite, monkeypatch, name, bound):
    monkeypatch.setenv("NAME", name)
    if bound:
        monkeypatch.setenv("BOUND", "1")
    suite.write(test_shop="method")
    output = suite.run(errors=1)
    assert "_pooled_fixture.py" not in output
    (error,) = re.findall(r"^E   TypeError: (.*)", output, re.M)
    assert error == (
        f"TestShop.shop takes {name}, but the object of a pooled fixture serves tests of many instances. "
        f"Write @staticmethod below @pooled_fixture and leave out {name}, or write @classmethod and use cls"
    )
