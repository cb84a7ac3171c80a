"""The leak check as a user sees it: in suites that pytest runs."""

import re

import pytest

POOL = """
import asyncio, threading
import pytest
from aiopool import Pool

pool = Pool(lambda: bytearray(10), name="frames")
"""


def reported(output):
    """The lines that were not put back: test, file, line and function of each get."""
    found = []
    name = None
    for line in output.splitlines():
        heading = re.fullmatch(r"_* ERROR at teardown of (\S+) _*", line) or re.fullmatch(r"test_\w+\.py::(\S+)", line)
        if heading is not None:
            name = heading[1]
        leak = re.search(r"of <aiopool.Pool 'frames'>, got at \S*?(\w+\.py):(\d+), in (\S+?)(,|$)", line)
        if leak is not None:
            found.append((name, leak[1], int(leak[2]), leak[3]))
    return found


def line(program, text):
    """The number of the line that has `text`."""
    return next(number for number, each in enumerate(program.strip().splitlines(), 1) if text in each)


LEAKY = (
    POOL
    + """
def test_good():
    with pool.borrow():
        pass

def test_leaky():
    pool.get()  # here

def test_after():
    pool.put(pool.get())

async def leaks():
    kept = pool.get()  # in leaks

@pytest.mark.asyncio
async def test_on_asyncio():
    await leaks()

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio", ("asyncio", UVLOOP)], ids=["a", "t", "u"])
async def test_on_anyio():
    await leaks()

@pytest.mark.asyncio
async def test_in_a_thread():
    await asyncio.to_thread(pool.get)

def test_in_another_loop():
    asyncio.run(leaks())
    thread = threading.Thread(target=asyncio.run, args=(leaks(),))
    thread.start()
    thread.join()
"""
)

LEAKS = [
    ("test_leaky", line(LEAKY, "# here"), "test_leaky"),
    ("test_on_asyncio", line(LEAKY, "# in leaks"), "leaks"),
    ("test_on_anyio[a]", line(LEAKY, "# in leaks"), "leaks"),
    ("test_on_anyio[t]", line(LEAKY, "# in leaks"), "leaks"),
    ("test_on_anyio[u]", line(LEAKY, "# in leaks"), "leaks"),
    ("test_in_another_loop", line(LEAKY, "# in leaks"), "leaks"),
    ("test_in_another_loop", line(LEAKY, "# in leaks"), "leaks"),
]


def test_a_leak_is_an_error_of_its_test_with_file_and_line(suite):
    suite.write("aiopool_leaks = error", test_leaky=LEAKY)
    found = reported(suite.run(passed=9, errors=7))
    assert [(test, line, function) for test, file, line, function in found if file == "test_leaky.py"] == LEAKS
    # What a library's code gets for its caller is found where Python code called the pool.
    assert [test for test, file, _, _ in found if file != "test_leaky.py"] == ["test_in_a_thread"]


def test_a_leak_can_be_a_warning(suite):
    suite.write("aiopool_leaks = warn", test_leaky=LEAKY)
    output = suite.run(passed=9, warnings=7)
    # pytest shows a warning once, below all tests that have it.
    assert {each[2:] for each in reported(output)} >= {each[1:] for each in LEAKS}
    assert all(f"test_leaky.py::{test}" in output for test, _, _ in LEAKS)
    assert "PytestWarning: aiopool: got and not put back by the end of the test:" in output


LOADED = """
import sys

def test_last():
    assert ("aiopool.testing._leak_check" in sys.modules) is EXPECTED
"""


@pytest.mark.parametrize(
    ("mode", "loaded", "outcomes"),
    [("off", False, {"passed": 10}), ("error", True, {"passed": 10, "errors": 7})],
)
def test_off_nothing_is_looked_at_and_nothing_loaded(suite, mode, loaded, outcomes):
    suite.write(f"aiopool_leaks = {mode}", test_leaky=LEAKY, test_z=LOADED.replace("EXPECTED", str(loaded)))
    assert bool(reported(suite.run(**outcomes))) is loaded


def test_the_marker_of_a_test_comes_first(suite):
    program = (
        POOL
        + """
@pytest.mark.aiopool_leaks("error")
def test_error():
    pool.get()

@pytest.mark.aiopool_leaks("warn")
def test_warn():
    pool.get()

def test_default():
    pool.get()

@pytest.mark.aiopool_leaks("off")
class TestOff:
    def test_off(self):
        pool.get()
"""
    )
    suite.write(test_marked=program)
    assert len(reported(suite.run(passed=4, errors=1, warnings=1))) == 2
    suite.write("aiopool_leaks = error", test_marked=program)
    assert len(reported(suite.run(passed=4, errors=2, warnings=1))) == 3


def test_a_mode_that_is_none_is_refused(suite):
    suite.write("aiopool_leaks = yes", test_nothing="")
    assert "aiopool_leaks must be off, warn or error, not 'yes'" in suite.refused()
    suite.write(test_marked=POOL + "@pytest.mark.aiopool_leaks('yes')\ndef test_marked(): pass")
    assert "test_marked.py::test_marked: aiopool_leaks takes" in suite.refused()


FIXTURES = (
    POOL
    + """
import pytest_asyncio

@pytest.fixture(scope="module")
def of_module():
    yield pool.get()  # in of_module, never put

@pytest.fixture(scope="class")
def of_class():
    with pool.borrow() as obj:
        yield obj

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def of_loop():
    obj = pool.get()
    yield obj
    pool.put(obj)

@pytest.fixture
def of_test():
    obj = pool.get()
    yield obj
    pool.put(obj)

@pytest.fixture
def leaky():
    return pool.get()  # in leaky

class TestThem:
    def test_one(self, of_module, of_class, of_test): pass
    def test_two(self, of_module, of_class, of_test): pass

@pytest.mark.asyncio(loop_scope="module")
async def test_three(of_module, of_loop): pass

@pytest.mark.asyncio
async def test_four(of_module, of_loop, leaky): pass

def test_five(of_module): pass

def test_last(): pass
"""
)


def test_fixtures_that_borrow_for_longer_are_not_reported_at_the_tests_that_use_them(suite):
    suite.write("aiopool_leaks = error", test_fixtures=FIXTURES, test_next="def test_next(): pass")
    output = suite.run(passed=7, errors=2)
    assert reported(output) == [
        ("test_four", "test_fixtures.py", line(FIXTURES, "# in leaky"), "leaky"),
        # With its last test the module ends, and so does the fixture.
        ("test_last", "test_fixtures.py", line(FIXTURES, "# in of_module"), "of_module"),
    ]
    assert "in of_module, for the fixture of_module (module scope)" in output


def test_a_module_wide_loop_of_anyio_is_no_obstacle(suite):
    # All of these run in one task, with one context: that of the fixture.
    program = (
        POOL
        + """
pytestmark = pytest.mark.anyio

@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

@pytest.fixture(scope="module")
async def wide(anyio_backend):
    with pool.borrow() as obj:
        yield obj

async def test_good(wide): pass

async def test_leaky(wide):
    pool.get()  # here

async def test_after(wide): pass
"""
    )
    suite.write("aiopool_leaks = error", test_wide=program)
    found = reported(suite.run(passed=6, errors=2))
    here = ("test_wide.py", line(program, "# here"), "test_leaky")
    assert found == [("test_leaky[asyncio]", *here), ("test_leaky[trio]", *here)]


def test_a_server_in_another_thread_borrows_for_itself(suite):
    program = (
        POOL
        + """
async def serve():
    return pool.get()

@pytest.fixture(scope="session", autouse=True)
def server():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    request = lambda: asyncio.run_coroutine_threadsafe(serve(), loop).result(30)
    pool.put(request())
    yield request
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()

def test_first():
    pass

def test_request(server):
    global kept
    kept = server()
"""
    )
    suite.write("aiopool_leaks = error", test_server=program)
    suite.run(passed=2)


def test_a_pooled_fixture_borrows_for_the_session(suite):
    program = (
        POOL
        + """
from aiopool.testing import pooled_fixture

@pooled_fixture
async def frame():
    with pool.borrow() as obj:
        yield obj

def test_first(frame): pass

def test_second(frame): pass

def test_leaky(frame):
    pool.get()  # here
"""
    )
    suite.write("aiopool_leaks = error", test_pooled=program)
    found = reported(suite.run(passed=3, errors=1))
    assert found == [("test_leaky", "test_pooled.py", line(program, "# here"), "test_leaky")]


def test_a_test_that_fails_is_reported_with_its_leak(suite):
    program = (
        POOL
        + """
@pytest.fixture
def broken():
    yield
    raise RuntimeError("teardown failed")

def test_failing(broken):
    pool.get()
    assert False
"""
    )
    suite.write("aiopool_leaks = error", test_failing=program)
    output = suite.run(failed=1, errors=1)
    assert "RuntimeError: teardown failed" in output
    assert len(reported(output)) == 1


def test_the_leak_check_under_xdist(suite):
    suite.write("aiopool_leaks = error", test_leaky=LEAKY)
    output = suite.run_apart("-n", "2", passed=9, errors=7)
    assert len(reported(output)) == 8
