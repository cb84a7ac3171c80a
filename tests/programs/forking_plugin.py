"""A pytest plugin that runs tests marked `in_child` in the child of a fork, set-up and teardown included."""

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from _pytest.runner import runtestprotocol

LIMIT = 20.0
"""Seconds after which a child counts as hanging."""


def in_child(function: Callable[[], object]) -> str:
    """Run `function` in the child of a fork; returns the error, or an empty string."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe, killing_late(pid) as late:
        error = pipe.read().decode()
    return "the child hangs" if late() else error


@contextmanager
def killing_late(pid: int) -> Iterator[Callable[[], bool]]:
    """Kill the child when it is late. A second child does it: a thread would make later forks unsafe."""
    watcher = os.fork()
    if watcher == 0:
        time.sleep(LIMIT)
        os.kill(pid, signal.SIGKILL)
        os._exit(0)
    status = 0
    yield lambda: os.WIFSIGNALED(status)
    status = os.waitpid(pid, 0)[1]
    os.kill(watcher, signal.SIGKILL)
    os.waitpid(watcher, 0)


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker."""
    config.addinivalue_line("markers", "in_child: run in the child of a fork")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run marked tests in a child, as pytest-forked does."""
    if item.get_closest_marker("in_child") is None:
        return None

    def run() -> None:
        # The child ends after this test, and so does its session.
        for report in runtestprotocol(item, log=False, nextitem=None):
            assert report.passed, report.longreprtext

    error = in_child(run)
    report = pytest.TestReport.from_item_and_call(item, pytest.CallInfo.from_call(lambda: None, when="call"))
    if error:
        report.outcome, report.longrepr = "failed", error
    item.ihook.pytest_runtest_logreport(report=report)
    return True
