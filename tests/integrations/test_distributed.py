"""Dask workers with `aiopool.integrations.distributed`, in clusters of their own processes."""

import pytest
from children import run_child, run_program

pytest.importorskip("distributed", reason="the extra test-distributed is not installed")
pytest.importorskip("numpy", reason="the extra test-distributed is not installed")


@pytest.fixture
def env(aiopool, child_env):
    """The environment of a child process. Dask prints much on stderr; only errors matter here."""
    if aiopool.implementation == "python":
        pytest.skip("it needs the C extension")
    return {**child_env, "DASK_LOGGING__DISTRIBUTED": "error", "PYTHONWARNINGS": "ignore::RuntimeWarning"}


def test_two_workers(env):
    assert run_program("dask_two_workers.py", env) == "ok\n"


@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_workers_in_one_process(env, protocol):
    pytest.importorskip("cryptography", reason="it creates the certificates, and needs cffi")
    assert run_program("dask_in_one_process.py", env, [protocol]) == "ok\n"


IMPORT = """
try:
    import aiopool.integrations.distributed
except ImportError as error:
    print(error)
else:
    print("imported")
"""


def test_without_the_extension_the_import_says_what_is_needed(aiopool, child_env):
    printed = run_child(IMPORT, child_env, options=["-W", "ignore::RuntimeWarning"])
    if aiopool.implementation == "python":
        assert printed.startswith(
            "aiopool.integrations.distributed needs aiopool's C extension, which is not in use here"
        )
    else:
        assert printed == "imported\n"
