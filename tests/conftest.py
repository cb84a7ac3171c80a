"""Fixtures for all tests: the package in each implementation, every kind of loop, and a disabled garbage collector."""

import gc
import importlib
import os
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from types import ModuleType

import anyio
import parallel
import pytest
from shared import no_other_pools

pytest_plugins = ["pytester"]

IMPLEMENTATIONS = ["python"]
if importlib.util.find_spec("aiopool._native._extension") is not None:
    IMPLEMENTATIONS.append("native")

BACKENDS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]
if importlib.util.find_spec("uvloop") is not None:
    BACKENDS.insert(1, pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--sample 3` runs about a third of the tests, the same ones each time."""
    parser.addoption("--sample", type=int, default=1, metavar="N", help="run one in N tests, the same ones each time")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose tests for `--sample`, and prepare them for `--parallel-threads`.

    It chooses by name, so that all processes of pytest-xdist choose the same.
    """
    sample = config.getoption("--sample")
    items[:] = [item for item in items if zlib.crc32(item.nodeid.encode()) % sample == 0]
    if config.getoption("--parallel-threads", 1) not in (1, "1"):
        parallel.prepare(items)


def load(implementation: str) -> ModuleType:
    """Import a new copy of the package with `implementation`, which has its own registry and processors."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "aiopool"]:
        del sys.modules[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIOPOOL_NO_EXTENSIONS", "1" if implementation == "python" else "")
        package = importlib.import_module("aiopool")
        # The package does not import these itself.
        importlib.import_module("aiopool.streams")
        importlib.import_module("aiopool.testing")
    assert package.implementation == implementation
    # On a machine that is short of memory, cleanup cycles would run in the middle of tests.
    nowhere = package._core.cleanup.memory_pressure = package._core.pressure.MemoryPressure("/nowhere")
    nowhere.is_felt()  # after the first check, which finds no files, it is never due
    return package


@pytest.fixture(scope="session", params=IMPLEMENTATIONS)
def aiopool(request: pytest.FixtureRequest) -> ModuleType:
    """The package. Each test that uses it runs once for each implementation."""
    return load(request.param)


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The pure Python package, for tests that replace its internals to see it break."""
    return load("python")


@pytest.fixture
def alone(aiopool: ModuleType) -> Iterator[ModuleType]:
    """The package, without other pools that have idle objects."""
    with no_other_pools(aiopool):
        yield aiopool


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """The loop that a test marked `anyio` runs on."""
    return request.param


@pytest.fixture
def run(anyio_backend: tuple[str, dict[str, object]]) -> Callable[..., object]:
    """Run an async function on a loop of its own, of each kind, to its end."""
    backend, options = anyio_backend
    return lambda function, *args: anyio.run(function, *args, backend=backend, backend_options=options)


@pytest.fixture(params=[False, True], ids=["crossing", "bound"])
def bound(request: pytest.FixtureRequest) -> bool:
    """Whether a pool is loop-bound; where it is not, a test asserts that things go wrong."""
    return request.param


@pytest.fixture(autouse=True)
def _no_binding_from_another_test(request: pytest.FixtureRequest) -> None:
    """Remove the binding that pytest's plugins for loops leave in the context for tests that run on no loop."""
    for name in {"aiopool", "reference"} & set(request.fixturenames):
        processor = request.getfixturevalue(name)._core.processor
        processor.pinned.set(processor.UNBOUND)


@pytest.fixture(autouse=True)
def _no_automatic_collection() -> Iterator[None]:
    """Disable the garbage collector: it may start a cleanup cycle in the middle of a test, which would be correct, but
    the test could not predict the results.
    """
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def reusing(aiopool: ModuleType) -> ModuleType:
    """The package, if it can reuse blocks; otherwise the test is skipped."""
    if aiopool.implementation == "python" and sys.version_info < (3, 12):
        pytest.skip("Python code cannot export buffers before 3.12")
    return aiopool


@pytest.fixture
def listening_to_ctrl_c() -> Iterator[None]:
    """Undo that a shell makes background processes ignore Ctrl-C, which children inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def child_env(aiopool: ModuleType) -> dict[str, str]:
    """The environment for a child interpreter that uses the same implementation."""
    return {
        **os.environ,
        "AIOPOOL_NO_EXTENSIONS": "1" if aiopool.implementation == "python" else "",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
