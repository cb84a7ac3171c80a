"""A pooled fixture whose factory fails: it runs once, every test says why, and tracebacks show only the user's code."""

import re
import sys

import pytest


def raised(output, error):
    """How often pytest shows that `error` was raised."""
    return len(re.findall(rf"^E +{re.escape(error)}$", output, re.M))


REPEATED = (
    "the factory of the pooled fixture shop failed in test_shop.py::test_it[0], and is not run again in this session"
)


def test_a_factory_that_failed_runs_once_for_100_tests(suite, monkeypatch):
    monkeypatch.setenv("FAILURE", "an error")
    suite.write(test_shop="failing_shop")
    output = suite.run(passed=1, errors=100)
    assert raised(output, "ConnectionError: no shop today") == 100
    assert output.count(REPEATED) == 99
    # Each of them is as long as the first, although a traceback grows each time its exception is raised.
    assert output.count('raise ConnectionError("no shop today")') == 100


@pytest.mark.parametrize("skips", ["pytest.skip", "SkipTest"])
def test_a_factory_that_skips_runs_once_and_skips_every_test(suite, monkeypatch, skips):
    monkeypatch.setenv("FAILURE", skips)
    suite.write(test_shop="failing_shop")
    output = suite.run("-rs", passed=1, skipped=100)
    assert "SKIPPED [100]" in output
    assert "no shop here" in output
    assert "is not run again" not in output


def test_pytest_fail_in_a_factory_is_a_failure_like_any_other(suite, monkeypatch):
    monkeypatch.setenv("FAILURE", "pytest.fail")
    suite.write(test_shop="failing_shop")
    output = suite.run(passed=1, errors=100)
    assert output.count("\nno shop today\n") == 100
    assert output.count(REPEATED) == 99


def test_the_factory_runs_for_each_value_of_a_parameter(suite):
    suite.write(test_shop="fails_in_one_town")
    assert raised(suite.run(passed=7, errors=3), "ConnectionError: no shop in Utrecht") == 3


def test_an_object_that_cannot_be_replaced(suite):
    suite.write(test_shop="no_second_shop")
    assert raised(suite.run(passed=2, errors=3), "ConnectionError: no second shop") == 3


def test_a_test_that_is_repeated_runs_the_factory_again(suite):
    suite.write(conftest="conftest_that_repeats", test_shop="third_attempt")
    suite.run(passed=3)


def test_repeating_another_test_does_not_run_the_factory_again(suite, monkeypatch):
    monkeypatch.setenv("FAILURE", "an error")
    monkeypatch.setenv("CALLS", "3")
    suite.write(conftest="conftest_that_repeats", test_shop="failing_shop")
    suite.run(passed=1, errors=100)


@pytest.mark.parametrize(
    ("failure", "shown"),
    [
        ("exit", "SystemExit: 3"),
        ("cancelled", "asyncio.exceptions.CancelledError"),
    ],
)
def test_an_exception_that_would_end_the_loop_or_its_task_is_an_error_of_the_test(suite, monkeypatch, failure, shown):
    monkeypatch.setenv("FAILURE", failure)
    suite.write(test_shop="ends_everything")
    output = suite.run(passed=3, errors=2)
    assert raised(output, shown) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a signal cannot be sent to a thread")
def test_ctrl_c_ends_the_session_and_cancels_the_factory(suite):
    suite.write(test_shop="interrupted_factory")
    output = suite.run_apart("-s", passed=1)
    assert "! KeyboardInterrupt !" in output
    assert output.count("<cancelled>") == 1


# --- tracebacks ---


def test_tracebacks_show_only_the_users_code(suite):
    suite.write(test_traced="traced")
    output = suite.run("--tb=short", passed=2, failed=3, errors=4)
    assert raised(output, "LookupError: broken") == 7
    shown = {line.partition(":")[0] for line in output.splitlines() if ": in " in line}
    assert shown == {"test_traced.py"}


def test_the_whole_traceback_can_be_seen(suite):
    suite.write(test_traced="traced")
    assert "_pooled_objects.py" in suite.run("--tb=short", "--full-trace", passed=2, failed=3, errors=4)
