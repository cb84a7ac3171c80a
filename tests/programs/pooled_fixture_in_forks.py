"""A suite for pytest: pooled fixtures in the children of forks, where the background loop does not run.

Needs `-p forking_plugin`. The order of the tests matters: the first one starts the loop in the parent.
"""

import asyncio
import gc
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest
from forking_plugin import in_child

from aiopool.testing import LoopBound, pooled_fixture

STAYED = "this object lives on an event loop of process .*, which does not run in process .*"


class Connection:
    """Works only on its own loop, and knows its process."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.process = os.getpid()

    async def query(self):
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        return self.process


async def reset(connection):
    assert connection.process == os.getpid()
    await asyncio.sleep(0)


@pooled_fixture(loop_bound=True, reset=reset)
async def connection():
    connection = Connection()
    yield connection
    assert connection.process == os.getpid()


@pooled_fixture
async def process():
    await asyncio.sleep(0)
    yield os.getpid()


def use(connection: LoopBound) -> None:
    assert connection.run_sync(Connection.query) == os.getpid()


def fails_at_once(connection: LoopBound) -> None:
    with pytest.raises(RuntimeError, match=STAYED):
        connection.run_sync(Connection.query)


async def fails_at_once_here(connection: LoopBound) -> None:
    with pytest.raises(RuntimeError, match=STAYED):
        await connection.run(Connection.query)


# --- handles that the child inherited ---


def test_run_sync(connection):
    use(connection)
    assert in_child(lambda: fails_at_once(connection)) == ""
    use(connection)


def test_run_on_asyncio(connection):
    assert in_child(lambda: asyncio.run(fails_at_once_here(connection))) == ""
    use(connection)


def test_run_on_trio(connection):
    trio = pytest.importorskip("trio")
    assert in_child(lambda: trio.run(fails_at_once_here, connection)) == ""
    use(connection)


@pytest.mark.asyncio
async def test_a_fork_inside_a_coroutine(connection):
    def child():
        fails_at_once(connection)
        asyncio.run(fails_at_once_here(connection))

    assert in_child(child) == ""
    assert await connection.run(Connection.query) == os.getpid()


def test_a_fork_inside_a_coroutine_on_trio(connection):
    trio = pytest.importorskip("trio")

    async def fork():
        return in_child(lambda: fails_at_once(connection))

    assert trio.run(fork) == ""
    use(connection)


def test_a_fork_on_the_background_loop(connection):
    async def fork(_):
        return in_child(lambda: fails_at_once(connection))

    assert connection.run_sync(fork) == ""
    use(connection)


inherited = None


def in_worker():
    fails_at_once(inherited)
    return "failed at once"


def test_a_pool_of_processes(connection):
    global inherited
    inherited = connection
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
        assert executor.submit(in_worker).result(20) == "failed at once"


def test_a_collection_in_the_child_closes_nothing_for_the_parent(connection):
    assert in_child(gc.collect) == ""
    use(connection)


# --- tests that run in the child ---


@pytest.mark.in_child
def test_the_child_has_its_own(connection, process):
    assert process == os.getpid()
    use(connection)


@pytest.mark.in_child
@pytest.mark.asyncio
async def test_the_child_has_its_own_on_a_loop(connection, process):
    assert process == os.getpid()
    assert await connection.run(Connection.query) == os.getpid()


def test_the_parent_kept_its_own(connection, process):
    assert process == os.getpid()
    use(connection)


def test_a_fixture_is_torn_down_in_the_child(request, process, caplog):
    # This happens after a fork in a test whose child returns instead of ending.
    def child():
        request.node.session._setupstate.teardown_exact(None)
        gc.collect()
        assert [record.getMessage() for record in caplog.records] == []  # no "Task was destroyed but it is pending"

    assert in_child(child) == ""


def test_the_parent_goes_on(connection, process):
    assert process == os.getpid()
    use(connection)
