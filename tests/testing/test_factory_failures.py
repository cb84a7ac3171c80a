"""A factory of a pooled fixture that fails: it runs once, every test says why, and the traceback is the user's code."""

import re
import sys

import pytest

HEAD = """
import asyncio
import os
import sys
import unittest
import pytest
from aiopool.testing import pooled_fixture

calls = []
"""

MANY = """
@pooled_fixture
async def shop():
    calls.append("shop")
    await asyncio.sleep(0)
    RAISES

@pytest.mark.parametrize("number", range(100))
def test_it(shop, number): pass

def test_calls():
    assert calls == ["shop"]
"""


def raised(output, error):
    """How often pytest shows that `error` was raised."""
    return len(re.findall(rf"^E +{re.escape(error)}$", output, re.M))


TOLD_AGAIN = "the factory of the pooled fixture shop failed in {}, and is not run again in this session"


def test_a_factory_that_failed_runs_once_for_100_tests(suite):
    suite.write(test_shop=HEAD + MANY.replace("RAISES", 'raise ConnectionError("no shop today")'))
    output = suite.run(passed=1, errors=100)
    assert raised(output, "ConnectionError: no shop today") == 100
    assert output.count(TOLD_AGAIN.format("test_shop.py::test_it[0]")) == 99
    # Each of them is as long as the first: a traceback grows each time it is raised.
    assert output.count('raise ConnectionError("no shop today")') == 100


@pytest.mark.parametrize("raises", ['pytest.skip("no shop here")', 'raise unittest.SkipTest("no shop here")'])
def test_a_factory_that_skips_runs_once_and_skips_every_test(suite, raises):
    suite.write(test_shop=HEAD + MANY.replace("RAISES", raises))
    output = suite.run("-rs", passed=1, skipped=100)
    assert "SKIPPED [100]" in output
    assert "no shop here" in output
    assert "is not run again" not in output


def test_pytest_fail_in_a_factory_is_a_failure_like_any_other(suite):
    suite.write(test_shop=HEAD + MANY.replace("RAISES", 'pytest.fail("no shop today", pytrace=False)'))
    output = suite.run(passed=1, errors=100)
    assert output.count("\nno shop today\n") == 100
    assert output.count(TOLD_AGAIN.format("test_shop.py::test_it[0]")) == 99


def test_each_value_of_a_parameter_is_another_chance(suite):
    program = """
@pytest.fixture(scope="session", params=["Ghent", "Utrecht", "Bruges"])
def town(request):
    return request.param

@pooled_fixture
async def shop(town):
    calls.append(town)
    if town == "Utrecht":
        raise ConnectionError(f"no shop in {town}")
    return town

@pooled_fixture
async def other():
    return 1

@pytest.mark.parametrize("number", range(3))
def test_it(shop, town, number, other):
    assert shop == town

def test_calls():
    assert calls == ["Ghent", "Utrecht", "Bruges"]
"""
    suite.write(test_shop=HEAD + program)
    assert raised(suite.run(passed=7, errors=3), "ConnectionError: no shop in Utrecht") == 3


def test_an_object_that_cannot_be_replaced(suite):
    # The first object serves one test; then the factory fails, and that is remembered too.
    program = """
@pooled_fixture(reset=lambda shop: False)
async def shop():
    calls.append("shop")
    if len(calls) > 1:
        raise ConnectionError("no second shop")

@pytest.mark.parametrize("number", range(4))
def test_it(shop, number): pass

def test_calls():
    assert len(calls) == 2
"""
    suite.write(test_shop=HEAD + program)
    assert raised(suite.run(passed=2, errors=3), "ConnectionError: no second shop") == 3


# As plugins that repeat failed tests do.
RERUNS = """
import pytest
from _pytest.runner import runtestprotocol

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    for attempt in range(3):
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if attempt == 2 or not any(report.failed for report in reports):
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""


def test_a_test_that_is_repeated_runs_the_factory_again(suite):
    program = """
@pooled_fixture
async def shop():
    calls.append("shop")
    if len(calls) < 3:
        raise ConnectionError("not yet")

def test_one(shop): pass

def test_two(shop): pass

def test_calls():
    assert len(calls) == 3
"""
    suite.write(conftest=RERUNS, test_shop=HEAD + program)
    suite.run(passed=3)


def test_repeats_of_other_tests_do_not_run_it_again(suite):
    suite.write(conftest=RERUNS, test_shop=HEAD + MANY.replace("RAISES", "1 / 0").replace('["shop"]', '3 * ["shop"]'))
    suite.run(passed=1, errors=100)


@pytest.mark.parametrize(
    ("raises", "shown"),
    [
        ("sys.exit(3)", "SystemExit: 3"),
        ("raise asyncio.CancelledError", "asyncio.exceptions.CancelledError"),
    ],
)
def test_what_would_end_the_loop_or_its_task_is_an_error_of_the_test(suite, raises, shown):
    program = """
@pooled_fixture
async def works():
    return 1

@pooled_fixture
async def shop():
    RAISES

@pooled_fixture
async def bad_end():
    yield 1
    RAISES

def test_works(works): pass
def test_shop(shop): pass
def test_bad_end(bad_end): pass
def test_still_works(works): pass
"""
    suite.write(test_shop=HEAD + program.replace("RAISES", raises))
    output = suite.run(passed=3, errors=2)
    assert raised(output, shown) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a signal cannot be sent to a thread")
def test_ctrl_c_ends_the_session_and_cancels_the_factory(suite):
    program = """
import signal, threading

@pooled_fixture
async def shop():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    try:
        await asyncio.sleep(100)
    finally:
        print("<cancelled>")

def test_before(): pass

def test_interrupted(shop): pass
"""
    suite.write(test_shop=HEAD + program)
    output = suite.run_apart("-s", passed=1)
    assert "! KeyboardInterrupt !" in output
    assert output.count("<cancelled>") == 1


# --- tracebacks ---

TRACED = """
def breaks():
    raise LookupError("broken")

async def breaks_later(shop=None):
    await asyncio.sleep(0)
    breaks()

@pooled_fixture
async def failing():
    await breaks_later()

@pooled_fixture(reset=breaks_later)
async def shop():
    return 1

@pooled_fixture(reset=lambda shop: False)
async def bad_end():
    yield 1
    await breaks_later()

@pooled_fixture(loop_bound=True)
async def bound():
    return 1

def test_factory(failing): pass
def test_factory_again(failing): pass
def test_reset(shop): pass
def test_teardown(bad_end): pass

def test_run_sync(bound):
    bound.run_sync(breaks_later)

@pytest.mark.asyncio
async def test_run(bound):
    await bound.run(breaks_later)

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_run_on_trio(bound):
    await bound.run(breaks_later)
"""


def test_tracebacks_show_the_users_code_only(suite):
    suite.write(test_traced=HEAD + TRACED)
    output = suite.run("--tb=short", passed=2, failed=3, errors=4)
    assert raised(output, "LookupError: broken") == 7
    shown = {line.partition(":")[0] for line in output.splitlines() if ": in " in line}
    assert shown == {"test_traced.py"}


def test_the_whole_traceback_can_be_seen(suite):
    suite.write(test_traced=HEAD + TRACED)
    assert "_pooled_objects.py" in suite.run("--tb=short", "--full-trace", passed=2, failed=3, errors=4)
