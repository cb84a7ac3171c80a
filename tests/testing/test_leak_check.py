"""The leak check as a user sees it: in suites that pytest runs."""

import re

import pytest
from shared import PROGRAMS


def reported(output):
    """The reported leaks: test, file, line and function of each get."""
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
    """The number of the line of a program that has `text`."""
    lines = (PROGRAMS / "suites" / f"{program}.py").read_text(encoding="utf-8").splitlines()
    return next(number for number, each in enumerate(lines, 1) if text in each)


LEAKS = [
    ("test_leaky", line("leaky", "# here"), "test_leaky"),
    ("test_on_asyncio", line("leaky", "# in leaks"), "leaks"),
    ("test_on_anyio[a]", line("leaky", "# in leaks"), "leaks"),
    ("test_on_anyio[t]", line("leaky", "# in leaks"), "leaks"),
    ("test_on_anyio[u]", line("leaky", "# in leaks"), "leaks"),
    ("test_in_another_loop", line("leaky", "# in leaks"), "leaks"),
    ("test_in_another_loop", line("leaky", "# in leaks"), "leaks"),
]


def test_a_leak_is_an_error_of_its_test_with_file_and_line(suite):
    suite.write("aiopool_leaks = error", test_leaky="leaky")
    found = reported(suite.run(passed=9, errors=7))
    assert [(test, line, function) for test, file, line, function in found if file == "test_leaky.py"] == LEAKS
    # If a library's code calls the pool for its caller, the report names the line in the library.
    assert [test for test, file, _, _ in found if file != "test_leaky.py"] == ["test_in_a_thread"]


def test_a_leak_can_be_a_warning(suite):
    suite.write("aiopool_leaks = warn", test_leaky="leaky")
    output = suite.run(passed=9, warnings=7)
    # pytest shows a warning once, below all its tests.
    assert {each[2:] for each in reported(output)} >= {each[1:] for each in LEAKS}
    assert all(f"test_leaky.py::{test}" in output for test, _, _ in LEAKS)
    assert "PytestWarning: aiopool: got and not put back by the end of the test:" in output


@pytest.mark.parametrize(
    ("mode", "loaded", "outcomes"),
    [("off", False, {"passed": 10}), ("error", True, {"passed": 10, "errors": 7})],
)
def test_off_nothing_is_checked_and_nothing_loaded(suite, monkeypatch, mode, loaded, outcomes):
    if loaded:
        monkeypatch.setenv("LOADED", "1")
    suite.write(f"aiopool_leaks = {mode}", test_leaky="leaky", test_z="leak_check_loaded")
    assert bool(reported(suite.run(**outcomes))) is loaded


def test_the_marker_of_a_test_overrides_the_ini_option(suite):
    suite.write(test_marked="marked_leaks")
    assert len(reported(suite.run(passed=4, errors=1, warnings=1))) == 2
    suite.write("aiopool_leaks = error", test_marked="marked_leaks")
    assert len(reported(suite.run(passed=4, errors=2, warnings=1))) == 3


def test_an_unknown_mode_is_rejected(suite):
    suite.write("aiopool_leaks = yes", test_next="one_test")
    assert "aiopool_leaks must be off, warn or error, not 'yes'" in suite.rejected()
    suite.write(test_marked="wrongly_marked")
    assert "test_marked.py::test_marked: aiopool_leaks takes" in suite.rejected()


def test_fixtures_of_wider_scope_are_not_reported_at_the_tests_that_use_them(suite):
    suite.write("aiopool_leaks = error", test_fixtures="leaky_fixtures", test_next="one_test")
    output = suite.run(passed=7, errors=2)
    assert reported(output) == [
        ("test_four", "test_fixtures.py", line("leaky_fixtures", "# in leaky"), "leaky"),
        # After its last test the module ends, and so does the fixture.
        ("test_last", "test_fixtures.py", line("leaky_fixtures", "# in of_module"), "of_module"),
    ]
    assert "in of_module, for the fixture of_module (module scope)" in output


def test_leaks_on_a_module_wide_loop_of_anyio_are_found(suite):
    suite.write("aiopool_leaks = error", test_wide="module_wide_loop")
    found = reported(suite.run(passed=6, errors=2))
    here = ("test_wide.py", line("module_wide_loop", "# here"), "test_leaky")
    assert found == [("test_leaky[asyncio]", *here), ("test_leaky[trio]", *here)]


def test_a_server_in_another_thread_borrows_for_itself(suite):
    suite.write("aiopool_leaks = error", test_server="server_in_a_thread")
    suite.run(passed=2)


def test_a_pooled_fixture_borrows_for_the_session(suite):
    suite.write("aiopool_leaks = error", test_pooled="pooled_frame")
    found = reported(suite.run(passed=3, errors=1))
    assert found == [("test_leaky", "test_pooled.py", line("pooled_frame", "# here"), "test_leaky")]


def test_a_test_that_fails_is_reported_with_its_leak(suite):
    suite.write("aiopool_leaks = error", test_failing="fails_and_leaks")
    output = suite.run(failed=1, errors=1)
    assert "RuntimeError: teardown failed" in output
    assert len(reported(output)) == 1


def test_the_leak_check_under_xdist(suite):
    suite.write("aiopool_leaks = error", test_leaky="leaky")
    output = suite.run_apart("-n", "2", passed=9, errors=7)
    assert len(reported(output)) == 8
