"""The end of the interpreter while objects are in use, idle or half done: nothing is printed and nothing crashes."""

import pytest
from children import run_program
from shared import PROGRAMS

STRICT = ["-X", "dev", "-W", "error", "-W", "ignore:Buffers are not reused on Python 3.11:RuntimeWarning"]


@pytest.mark.parametrize("flags", [[], ["-X", "dev"]], ids=["plain", "dev"])
def test_full_pools(child_env, flags):
    assert run_program("full_pools_at_exit.py", child_env, options=flags) == ""


@pytest.mark.parametrize("collection", ["collection", "no collection"])
def test_everything_at_once(child_env, collection):
    assert run_program("shutdown.py", child_env, [collection], STRICT) == "ok\n"


@pytest.mark.parametrize("program", sorted((PROGRAMS / "at_exit").glob("*.py")), ids=lambda path: path.stem)
def test_buffers(child_env, program):
    assert run_program(program, child_env, options=STRICT) == "ok\n"
