"""Several interpreters in one process, each with pools of its own."""

import sys

import pytest
from children import run_program

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="with a GIL of their own since 3.12, which crashes by itself once two of them import asyncio",
)


def test_each_interpreter_has_its_own_pools(child_env):
    assert run_program("interpreters.py", child_env) == "ok\n"


def test_views_at_the_end_of_an_interpreter_of_several(child_env):
    assert run_program("buffer_interpreters.py", child_env) == "ok\n"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters is new in Python 3.14")
def test_interpreters_use_aiopool_at_once_and_pass_buffers_to_each_other(child_env):
    assert run_program("concurrent_interpreters.py", child_env) == "ok\n"
