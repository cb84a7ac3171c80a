"""The child of a fork from inside a coroutine."""

import os

import pytest
from children import run_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_the_child_frees_times_out_and_has_ids_of_its_own(child_env):
    assert run_program("fork_in_a_coroutine.py", child_env, options=["-W", "ignore::DeprecationWarning"]) == "ok\n"
