"""Several interpreters in one process, by `concurrent.interpreters`."""

import pytest
from children import run_program

pytest.importorskip("concurrent.interpreters", reason="new in Python 3.14")


def test_interpreters_use_aiopool_at_once_and_pass_buffers_to_each_other(child_env):
    assert run_program("concurrent_interpreters.py", child_env) == "ok\n"
