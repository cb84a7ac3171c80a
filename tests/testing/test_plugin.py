"""The plugin that pytest loads at the start of every run."""

import subprocess
import sys

import pytest
from children import CHILD_LIMIT


def test_a_suite_that_does_not_use_it_pays_nothing(suite):
    suite.write(test_other="imports_nothing")
    suite.run_without_plugin("-p", "pytest_aiopool", passed=1)


def test_importing_aiopool_does_not_import_pytest(child_env):
    program = "import aiopool, aiopool.testing, sys; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], env=child_env, check=True, timeout=CHILD_LIMIT)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "plugins are not loaded automatically here"),
        (["-p", "no:pytest_aiopool"], "`-p no:pytest_aiopool` blocks it"),
    ],
    ids=["not loaded", "blocked"],
)
def test_without_the_plugin_a_pooled_fixture_says_how_to_load_it(suite, options, why):
    suite.write(test_shop="one_pooled_fixture")
    output = suite.run_without_plugin(*options, errors=1)
    assert "A pooled_fixture needs the pytest plugin pytest_aiopool, which is not loaded" in output
    assert why in output
    assert "_pooled_objects" not in output


def test_the_advice_of_the_error_works(suite):
    suite.write(test_shop="one_pooled_fixture")
    suite.run_without_plugin("-p", "pytest_aiopool", passed=1)
    suite.write(test_shop="one_pooled_fixture", conftest="conftest_that_loads_the_plugin")
    suite.run_without_plugin(passed=1)
