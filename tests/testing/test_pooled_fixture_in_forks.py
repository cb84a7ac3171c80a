"""Pooled fixtures in the children of forks."""

import os

import pytest
from shared import FORKS_AMID_THREADS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_in_a_child_pooled_fixtures_work_and_handles_of_the_parent_fail_at_once(suite):
    # The background loop runs in a thread.
    suite.run_program("pooled_fixture_in_forks.py", "-p", "forking_plugin", "-W", FORKS_AMID_THREADS, passed=13)
