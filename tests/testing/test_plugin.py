"""The plugin that pytest loads at the start of every run."""

import subprocess
import sys


def test_a_suite_that_does_not_use_it_pays_nothing(suite):
    program = """
import sys

def test_nothing_was_imported():
    assert "pytest_aiopool" in sys.modules
    assert not {"aiopool", "asyncio"} & set(sys.modules)
"""
    suite.write(test_other=program)
    suite.run_bare(passed=1)


def test_importing_aiopool_does_not_import_pytest(child_env):
    program = "import aiopool, aiopool.testing, sys; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], env=child_env, check=True, timeout=60)
