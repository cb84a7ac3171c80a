"""What every test can ask for: the package in each implementation, every kind of loop, and a quiet collector."""

import gc
import importlib
import os
import sys
import zlib
from collections.abc import Iterator
from types import ModuleType

import parallel
import pytest

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
    """Leave out what `--sample` does not choose, and prepare the rest for `--parallel-threads`.

    It chooses by name, so that all processes of pytest-xdist choose the same.
    """
    sample = config.getoption("--sample")
    items[:] = [item for item in items if zlib.crc32(item.nodeid.encode()) % sample == 0]
    if config.getoption("--parallel-threads", 1) not in (1, "1"):
        parallel.prepare(items)


def load(implementation: str) -> ModuleType:
    """A copy of the package with `implementation`, beside any other copy: with its own registry and processors."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "aiopool"]:
        del sys.modules[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIOPOOL_NO_EXTENSIONS", "1" if implementation == "python" else "")
        package = importlib.import_module("aiopool")
        # What the package does not import by itself.
        importlib.import_module("aiopool.streams")
        importlib.import_module("aiopool.testing")
    assert package.implementation == implementation
    # A machine that is short of memory would bring cleanup cycles into the middle of tests.
    nowhere = package._core.cleanup.memory_pressure = package._core.pressure.MemoryPressure("/nowhere")
    nowhere.is_felt()  # from the first look on it knows that there is nothing to look at, and is never due
    return package


@pytest.fixture(scope="session", params=IMPLEMENTATIONS)
def aiopool(request: pytest.FixtureRequest) -> ModuleType:
    """The package; each test that asks for it runs once for each implementation."""
    return load(request.param)


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The pure Python package, for tests that change its insides to see it break."""
    return load("python")


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """The loop that a test marked `anyio` runs on."""
    return request.param


@pytest.fixture(autouse=True)
def _no_binding_from_another_test(request: pytest.FixtureRequest) -> None:
    """The pytest plugins for loops carry the context of a test on a loop on to tests that run on none."""
    for name in {"aiopool", "reference"} & set(request.fixturenames):
        processor = request.getfixturevalue(name)._core.processor
        processor.pinned.set(processor.UNBOUND)


@pytest.fixture(autouse=True)
def _no_automatic_collection() -> Iterator[None]:
    """A cleanup cycle in the middle of a test would be right, but the test could not say what it expects."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def reusing(aiopool: ModuleType) -> ModuleType:
    """The package, where it can reuse blocks."""
    if aiopool.implementation == "python" and sys.version_info < (3, 12):
        pytest.skip("Python code cannot export buffers before 3.12")
    return aiopool


@pytest.fixture
def child_env(aiopool: ModuleType) -> dict[str, str]:
    """The environment for a child interpreter that is to use the same implementation."""
    return {
        **os.environ,
        "AIOPOOL_NO_EXTENSIONS": "1" if aiopool.implementation == "python" else "",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
