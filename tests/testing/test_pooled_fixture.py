"""`pooled_fixture` in suites that pytest runs."""

import asyncio
import re

import pytest

SHOP = """
import asyncio
import pytest, pytest_asyncio
from aiopool.testing import pooled_fixture

events = []

class Shop:
    def __init__(self):
        self.orders = []
        self.broken = False

def say(text):
    events.append(text)
    print(f"<{text}>")
"""

POOLED = (
    SHOP
    + """
async def reset(shop):
    say("reset")
    shop.orders.clear()
    return not shop.broken

@pooled_fixture(reset=reset)
async def shop():
    "A shop that is expensive."
    say("made")
    await asyncio.sleep(0)
    yield Shop()
    await asyncio.sleep(0)
    say("torn down")
"""
)

ON_MANY_LOOPS = (
    POOLED
    + """
loops = []

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(5))
async def test_asyncio(shop, number):
    loops.append(asyncio.get_running_loop())
    assert not shop.orders
    shop.orders.append(number)

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio", ("asyncio", UVLOOP)])
async def test_anyio(shop):
    assert not shop.orders
    shop.orders.append("anyio")

def test_plain(shop):
    assert not shop.orders
    shop.orders.append("plain")

class TestClass:
    @pytest.mark.asyncio(loop_scope="class")
    async def test_class(self, shop):
        assert not shop.orders

@pytest.mark.asyncio(loop_scope="module")
async def test_module(shop):
    assert not shop.orders

@pytest.mark.asyncio(loop_scope="package")
async def test_package(shop):
    assert not shop.orders

@pytest.mark.asyncio(loop_scope="session")
async def test_session(shop):
    assert not shop.orders

def test_at_last():
    assert len(set(loops)) == 5
    assert events == ["made"] + 13 * ["reset"]
"""
)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_one_object_serves_tests_on_many_loops(suite, mode):
    suite.write(f"asyncio_mode = {mode}", "aiopool_leaks = error", test_shop=ON_MANY_LOOPS)
    output = suite.run("-s", passed=14)
    assert output.count("<made>") == output.count("<torn down>") == 1
    assert output.index("<torn down>") > output.rindex("<reset>")


def test_anyio_in_auto_mode(suite):
    program = (
        POOLED
        + """
async def test_anyio(shop, anyio_backend):
    assert not shop.orders
    shop.orders.append(1)
"""
    )
    suite.write("anyio_mode = auto", test_shop=program)
    output = suite.run("-s", passed=2)
    assert output.count("<made>") == 1


def test_an_object_whose_reset_fails_is_torn_down_and_replaced(suite):
    program = (
        POOLED
        + """
def test_breaks_it(shop):
    shop.broken = True

def test_has_another(shop):
    assert not shop.broken
    assert events == ["made", "reset", "torn down", "made"]
"""
    )
    suite.write(test_shop=program)
    assert suite.run("-s", passed=2).count("<torn down>") == 2


def test_a_reset_that_raises_is_an_error_of_the_test_before(suite):
    program = (
        SHOP
        + """
def reset(shop):
    if shop.orders:
        raise RuntimeError("cannot undo orders")

@pooled_fixture(reset=reset)
async def shop():
    yield Shop()
    say("torn down")

def test_one(shop):
    shop.orders.append(1)

def test_two(shop):
    assert not shop.orders
    assert events == ["torn down"]
"""
    )
    suite.write(test_shop=program)
    output = suite.run(passed=2, errors=1)
    assert "ERROR at teardown of test_one" in output
    assert "RuntimeError: cannot undo orders" in output


def test_a_test_that_fails_gives_the_object_back_too(suite):
    program = (
        POOLED
        + """
def test_fails(shop):
    shop.orders.append(1)
    assert False

def test_next(shop):
    assert not shop.orders
    assert events == ["made", "reset"]
"""
    )
    suite.write(test_shop=program)
    suite.run(failed=1, passed=1)


def test_an_error_in_the_factory_is_shown(suite):
    program = (
        SHOP
        + """
@pooled_fixture
async def no_shop():
    raise ConnectionError("no shop today")

@pooled_fixture
async def nothing():
    if False:
        yield

@pooled_fixture
async def twice():
    yield 1
    yield 2

@pooled_fixture
async def bad_end():
    yield 1
    raise RuntimeError("cannot close")

def test_no_shop(no_shop): pass
def test_nothing(nothing): pass
def test_twice(twice): pass
def test_bad_end(bad_end): pass
"""
    )
    suite.write(test_shop=program)
    output = suite.run(passed=2, errors=3)
    assert "ConnectionError: no shop today" in output
    assert "the factory of the pooled fixture nothing ended without a yield" in output
    assert "All traceback entries are hidden" not in output
    # At the end of the session both are reported.
    assert "the factory of the pooled fixture twice has a second yield" in output
    assert "RuntimeError: cannot close" in output


WITH_GROUP = (
    SHOP
    + """
async def reset(shop):
    if shop.broken:
        shop.order.set()
        await asyncio.sleep(0.01)

@pooled_fixture(reset=reset)
async def shop():
    shop = Shop()
    async def sell():
        await shop.order.wait()
        if shop.broken:
            raise RuntimeError("the shop burned down")
    async with asyncio.TaskGroup() as group, asyncio.timeout(100):
        shop.order = asyncio.Event()
        group.create_task(sell())
        say("made")
        yield shop
        shop.order.set()
    say("torn down")

def test_one(shop): pass

def test_other(shop):
    shop.broken = BROKEN

def test_next(shop):
    assert not shop.broken
"""
)


def test_a_task_group_around_the_yield(suite):
    suite.write(test_shop=WITH_GROUP.replace("BROKEN", "False"))
    output = suite.run("-s", passed=3)
    assert output.count("<made>") == output.count("<torn down>") == 1


def test_a_task_group_around_the_yield_that_fails(suite):
    suite.write(test_shop=WITH_GROUP.replace("BROKEN", "True"))
    output = suite.run("-s", passed=3, errors=1)
    assert "ERROR at teardown of test_other" in output
    assert "RuntimeError: the shop burned down" in output
    assert (output.count("<made>"), output.count("<torn down>")) == (2, 1)


def test_an_object_that_ends_between_two_tests(suite):
    program = (
        SHOP
        + """
import threading, time

burned = threading.Event()

@pooled_fixture(reset=lambda shop: shop.fire.set())
async def shop():
    say("made")
    shop = Shop()
    async def burn():
        await shop.fire.wait()
        raise RuntimeError("the shop burned down")
    try:
        async with asyncio.TaskGroup() as group:
            shop.fire = asyncio.Event()
            if len(events) == 1:
                group.create_task(burn())
            yield shop
    finally:
        burned.set()

def test_one(shop): pass

def test_between():
    assert burned.wait(30)
    time.sleep(0.05)  # the rest of the task's last step

def test_cannot_have_it(shop): pass

def test_has_another(shop):
    assert events == ["made", "made"]
"""
    )
    suite.write(test_shop=program)
    output = suite.run(passed=3, errors=1)
    assert "ERROR at setup of test_cannot_have_it" in output
    assert "RuntimeError: the shop burned down" in output


def test_a_factory_gets_the_fixtures_that_live_as_long(suite):
    program = (
        SHOP
        + """
@pytest.fixture(scope="session")
def address(tmp_path_factory):
    yield tmp_path_factory.mktemp("shop")
    say("address gone")

@pytest.fixture
def short():
    pass

@pooled_fixture
async def shop(address):
    yield (Shop(), address)
    say("torn down")

@pooled_fixture
async def wrong(short):
    pass

def test_shop(shop):
    assert shop[1].exists()

def test_wrong(wrong): pass
"""
    )
    suite.write(test_shop=program)
    output = suite.run("-s", passed=1, errors=1)
    assert "ScopeMismatch: the pooled fixture wrong lives until" in output
    assert "cannot need short, which has function scope" in output
    assert output.index("<torn down>") < output.index("<address gone>")


TOWNS = (
    SHOP
    + """
@pytest.fixture(scope="session")
def town():
    return "TOWN"

@pooled_fixture
async def shop(town):
    yield town

def test_one(shop):
    assert shop == "TOWN"

def test_two(shop):
    assert shop == "TOWN"
"""
)

CONFTEST = """
from aiopool.testing import pooled_fixture

@pooled_fixture
async def shared(town):
    print(f"<made {town}>")
    yield town
    print(f"<torn down {town}>")
"""


def test_fixtures_of_the_same_name_are_those_of_the_tests_module(suite):
    # Whoever asks by the request of the first test for all finds the first module's fixtures, or none.
    shared = "\ndef test_shared(shared):\n    assert shared == 'TOWN'\n"
    towns = {"test_a": "Ghent", "test_b": "Utrecht"}
    programs = {name: (TOWNS + shared).replace("TOWN", town) for name, town in towns.items()}
    suite.write(conftest=CONFTEST, **programs)
    output = suite.run("-s", passed=6)
    assert [output.count(f"<{what} {town}>") for what in ("made", "torn down") for town in towns.values()] == [1] * 4


def test_a_need_with_parameters_is_there_until_the_teardown(suite):
    program = (
        SHOP
        + """
@pytest.fixture(scope="session", params=["Ghent", "Utrecht"])
def town(request):
    say(f"+ {request.param}")
    yield request.param
    say(f"- {request.param}")

@pooled_fixture
async def shop(town, request, number=1):
    assert request.scope == "session"
    say(f"made in {town}")
    yield (town, number)
    say(f"torn down in {town}")

def test_one(shop, town): assert shop == (town, 1)

def test_two(shop, town): assert shop == (town, 1)
"""
    )
    suite.write(test_shop=program)
    output = suite.run("-s", passed=4)
    order = [f"<{text.format(town)}>" for town in ("Ghent", "Utrecht") for text in LIFE]
    assert [output.count(each) for each in order] == [1] * 8
    assert sorted(order, key=output.index) == order


LIFE = ["+ {}", "made in {}", "torn down in {}", "- {}"]

BOUND = (
    SHOP
    + """
class Connection:
    "Works on its own loop only, as they do."
    def __init__(self):
        self.lock = asyncio.Lock()
        self.loop = asyncio.get_running_loop()

    async def query(self, text, *, times=1):
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        if text == "wrong":
            raise LookupError(text)
        return text * times

    async def wait(self):
        try:
            await asyncio.sleep(100)
        finally:
            say("cancelled")

@pooled_fixture(loop_bound=True, reset=lambda connection: say("reset"))
async def connection():
    return Connection()

async def use(connection):
    assert await connection.run(Connection.query, "a", times=3) == "aaa"
    assert await connection.run(lambda each: each.loop.is_running())
    with pytest.raises(LookupError, match="wrong"):
        await connection.run(Connection.query, "wrong")

@pytest.mark.asyncio
async def test_asyncio(connection):
    await use(connection)
    with pytest.raises(RuntimeError, match="await run"):
        connection.run_sync(Connection.query, "a")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(connection.run(Connection.wait), 0.01)

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio", ("asyncio", UVLOOP)])
async def test_anyio(connection):
    import anyio
    await use(connection)
    with anyio.move_on_after(0.01):
        await connection.run(Connection.wait)

def test_plain(connection):
    assert connection.run_sync(Connection.query, "b") == "b"
    assert "Connection" in repr(connection)

def test_as_it_is_it_fails_elsewhere(connection):
    with pytest.raises(AssertionError):
        asyncio.run(connection._obj.query("a"))

def test_at_last():
    assert events.count("reset") == 6
    assert events.count("cancelled") == 4
"""
)


def test_loop_bound_objects_are_used_on_their_own_loop(suite):
    suite.write(test_bound=BOUND)
    suite.run(passed=7)


LINK = (
    SHOP
    + """
class Link:
    "As clients of databases do, it waits for answers on the loop that it was made on."
    def __init__(self):
        self.loop = asyncio.get_running_loop()

    async def ask(self):
        answer = self.loop.create_future()
        self.loop.call_soon_threadsafe(answer.set_result, 42)
        return await answer

FIXTURE
async def link():
    say("made")
    yield Link()

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(2))
async def test_link(link, number):
    assert await ASK == 42
"""
)


@pytest.mark.parametrize(
    ("loop_scope", "error", "outcomes"),
    [("session", "attached to a different loop", {"failed": 2}), ("function", "ScopeMismatch", {"errors": 2})],
)
def test_a_session_fixture_of_pytest_asyncio_fails_on_the_loop_of_a_test(suite, loop_scope, error, outcomes):
    fixture = f'@pytest_asyncio.fixture(scope="session", loop_scope="{loop_scope}")'
    suite.write(test_link=LINK.replace("FIXTURE", fixture).replace("ASK", "link.ask()"))
    assert error in suite.run(**outcomes)


def test_a_pooled_fixture_takes_its_place(suite):
    fixture = "@pooled_fixture(loop_bound=True)"
    suite.write(test_link=LINK.replace("FIXTURE", fixture).replace("ASK", "link.run(Link.ask)"))
    assert suite.run("-s", passed=2).count("<made>") == 1


def test_under_xdist_each_worker_has_its_own(suite):
    program = (
        POOLED
        + """
import os

@pytest.mark.parametrize("number", range(8))
def test_it(shop, number, tmp_path_factory, worker_id):
    (tmp_path_factory.getbasetemp().parent / f"{worker_id}-{id(shop)}").touch()
"""
    )
    suite.write(test_shop=program)
    suite.run_apart("-n", "2", f"--basetemp={suite.path / 'base'}", passed=8)
    made = [path.name.partition("-")[0] for path in (suite.path / "base").glob("gw*")]
    assert sorted(made) == ["gw0", "gw1"]


def test_the_fixture_is_described(suite):
    suite.write(test_shop=POOLED)
    described = re.search(r"^shop -- (.*):\d+\n +A shop that is expensive\.$", suite.run("--fixtures", "-q"), re.M)
    assert described is not None
    assert described[1] == "test_shop.py"


@pytest.mark.parametrize("factory", [lambda: 1, asyncio.sleep(0).close, 3], ids=["function", "method", "number"])
def test_only_async_functions_are_factories(aiopool, factory):
    with pytest.raises(TypeError, match="pooled_fixture takes an async def function, not"):
        aiopool.testing.pooled_fixture(factory)


def test_a_reset_that_cannot_be_called(aiopool):
    async def factory():
        """Nothing."""

    with pytest.raises(TypeError, match="reset must be callable or None, not 3"):
        aiopool.testing.pooled_fixture(factory, reset=3)
