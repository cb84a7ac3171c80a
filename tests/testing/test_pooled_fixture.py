"""`pooled_fixture` in suites that pytest runs."""

import asyncio
import re

import pytest


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_one_object_serves_tests_on_many_loops(suite, mode):
    suite.write(
        f"asyncio_mode = {mode}", "aiopool_leaks = error", conftest="conftest_with_a_shop", test_shop="many_loops"
    )
    output = suite.run("-s", passed=14)
    assert output.count("<created>") == output.count("<torn down>") == 1
    assert output.index("<torn down>") > output.rindex("<reset>")


def test_anyio_in_auto_mode(suite):
    suite.write("anyio_mode = auto", conftest="conftest_with_a_shop", test_shop="anyio_in_auto_mode")
    output = suite.run("-s", passed=2)
    assert output.count("<created>") == 1


def test_an_object_whose_reset_fails_is_torn_down_and_replaced(suite):
    suite.write(conftest="conftest_with_a_shop", test_shop="breaks_its_shop")
    assert suite.run("-s", passed=2).count("<torn down>") == 2


def test_a_reset_that_raises_is_an_error_of_the_test_before(suite):
    suite.write(test_shop="reset_raises")
    output = suite.run(passed=2, errors=1)
    assert "ERROR at teardown of test_one" in output
    assert "RuntimeError: cannot undo orders" in output


def test_a_test_that_fails_gives_the_object_back_too(suite):
    suite.write(conftest="conftest_with_a_shop", test_shop="fails_with_a_shop")
    suite.run(failed=1, passed=1)


def test_an_error_in_the_factory_is_shown(suite):
    suite.write(test_shop="faulty_factories")
    output = suite.run(passed=2, errors=3)
    assert "ConnectionError: no shop today" in output
    assert "the factory of the pooled fixture nothing ended without a yield" in output
    assert "All traceback entries are hidden" not in output
    # At the end of the session both are reported.
    assert "the factory of the pooled fixture twice has a second yield" in output
    assert "RuntimeError: cannot close" in output


def test_a_task_group_around_the_yield(suite):
    suite.write(test_shop="task_group")
    output = suite.run("-s", passed=3)
    assert output.count("<created>") == output.count("<torn down>") == 1


def test_a_task_group_around_the_yield_that_fails(suite, monkeypatch):
    monkeypatch.setenv("BURNS", "1")
    suite.write(test_shop="task_group")
    output = suite.run("-s", passed=3, errors=1)
    assert "ERROR at teardown of test_other" in output
    assert "RuntimeError: the shop burned down" in output
    assert (output.count("<created>"), output.count("<torn down>")) == (2, 1)


def test_an_object_that_ends_between_two_tests(suite):
    suite.write(test_shop="burns_between_tests")
    output = suite.run(passed=3, errors=1)
    assert "ERROR at setup of test_cannot_have_it" in output
    assert "RuntimeError: the shop burned down" in output


def test_a_factory_gets_only_fixtures_of_session_scope(suite):
    suite.write(test_shop="needs_other_fixtures")
    output = suite.run("-s", passed=1, errors=1)
    assert "ScopeMismatch: the pooled fixture wrong lives until" in output
    assert "cannot need short, which has function scope" in output
    assert output.index("<torn down>") < output.index("<address gone>")


def test_a_factory_gets_the_fixtures_of_the_tests_module(suite):
    # Looking up fixtures by the request of the first test would find those of the first module, or none.
    suite.write(conftest="conftest_of_towns", test_a="towns", test_b="towns")
    output = suite.run("-s", passed=6)
    towns = ("Ghent", "Utrecht")
    assert [output.count(f"<{what} {town}>") for what in ("created", "torn down") for town in towns] == [1] * 4


def test_a_fixture_with_parameters_lives_until_the_teardown_of_the_pooled_fixture(suite):
    suite.write(test_shop="needs_a_parameter")
    output = suite.run("-s", passed=4)
    life = ["+ {}", "created in {}", "torn down in {}", "- {}"]
    order = [f"<{text.format(town)}>" for town in ("Ghent", "Utrecht") for text in life]
    assert [output.count(each) for each in order] == [1] * 8
    assert sorted(order, key=output.index) == order


def test_loop_bound_objects_are_used_on_their_own_loop(suite):
    suite.write(test_bound="bound_connection")
    suite.run(passed=7)


@pytest.mark.parametrize(
    ("loop_scope", "error", "outcomes"),
    [("session", "attached to a different loop", {"failed": 2}), ("function", "ScopeMismatch", {"errors": 2})],
)
def test_a_session_fixture_of_pytest_asyncio_fails_on_the_loop_of_a_test(
    suite, monkeypatch, loop_scope, error, outcomes
):
    monkeypatch.setenv("LOOP_SCOPE", loop_scope)
    suite.write(conftest="conftest_of_pytest_asyncio", test_link="asks_a_link")
    assert error in suite.run(**outcomes)


def test_a_pooled_fixture_instead_of_the_session_fixture_works(suite):
    suite.write(conftest="conftest_with_a_link", test_link="asks_a_link")
    assert suite.run("-s", passed=2).count("<created>") == 1


def test_under_xdist_each_worker_has_its_own(suite):
    suite.write(conftest="conftest_with_a_shop", test_shop="notes_its_worker")
    suite.run_apart("-n", "2", f"--basetemp={suite.path / 'base'}", passed=8)
    created = [path.name.partition("-")[0] for path in (suite.path / "base").glob("gw*")]
    assert sorted(created) == ["gw0", "gw1"]


def test_the_fixture_is_described(suite):
    suite.write(conftest="conftest_with_a_shop", test_shop="breaks_its_shop")
    described = re.search(r"^shop -- (.*):\d+\n +A shop that is expensive\.$", suite.run("--fixtures", "-q"), re.M)
    assert described is not None
    assert described[1] == "conftest.py"


@pytest.mark.parametrize("factory", [lambda: 1, asyncio.sleep(0).close, 3], ids=["function", "method", "number"])
def test_only_async_functions_are_factories(aiopool, factory):
    with pytest.raises(TypeError, match="pooled_fixture takes an async def function, not"):
        aiopool.testing.pooled_fixture(factory)


def test_a_reset_that_cannot_be_called(aiopool):
    async def factory():
        """Nothing."""

    with pytest.raises(TypeError, match="reset must be callable or None, not 3"):
        aiopool.testing.pooled_fixture(factory, reset=3)
