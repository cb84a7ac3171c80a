"""The time of a suite whose async fixture takes long to set up: created for each test, or pooled.

pytest runs the same suite of tests, each on a loop of its own, once with a fixture of pytest-asyncio and once with
`aiopool.testing.pooled_fixture`; then the same with pytest-xdist on two workers. The set-up is a sleep, so it takes no
CPU time and two workers really do two at a time: a set-up that computes gains less from workers, and as much from
pooling.

What could make the figures misleading: the tests do nothing, so the figures show only the fixture and pytest itself. A
suite gains at most the set-up's share of its time.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from _report import arguments, headline, plain_table, show, write_json

TESTS = 200
SET_UP = 0.02
"""In seconds."""

SUITE = f"""
import asyncio, os
import pytest, pytest_asyncio
from aiopool.testing import pooled_fixture

@FIXTURE
async def database():
    await asyncio.sleep({SET_UP})
    with open(os.environ["SET_UPS"], "a") as set_ups:
        set_ups.write(".")
    yield {{}}

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range({TESTS}))
async def test_it(database, number):
    assert not database
    database[number] = asyncio.get_running_loop()
"""

FIXTURES = {
    "created for each test": "pytest_asyncio.fixture",
    "pooled": "pooled_fixture(reset=dict.clear)",
}

WORKERS = {"one process": [], "two workers of pytest-xdist": ["-n", "2"]}


class Run(NamedTuple):
    """One run of the suite."""

    #: wall-clock time of the whole process
    seconds: float
    #: how often the fixture was set up
    set_ups: int


def run(folder: Path, fixture: str, options: list[str]) -> Run:
    (folder / "test_suite.py").write_text(SUITE.replace("FIXTURE", fixture), encoding="utf-8")
    set_ups = folder / "set-ups"
    set_ups.write_text("", encoding="utf-8")
    root = str(Path(__file__).parent.parent)
    plugins = ["-p", "pytest_aiopool", "-p", "asyncio", "-p", "xdist", "-p", "no:cacheprovider"]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, *options, "test_suite.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "SET_UPS": str(set_ups)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if not re.search(rf"^{TESTS} passed", done.stdout, re.MULTILINE):
        raise SystemExit(done.stdout + done.stderr)
    return Run(seconds, len(set_ups.read_text(encoding="utf-8")))


def main() -> None:
    options = arguments(__doc__, rounds=5, quick=1)
    best: dict[tuple[str, str], Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        # Round by round: a machine is faster in one minute than in the next. The fastest run is the least disturbed.
        for _ in range(options.rounds):
            for workers, extra in WORKERS.items():
                for name, fixture in FIXTURES.items():
                    done = run(Path(folder), fixture, extra)
                    best[workers, name] = min(done, best.get((workers, name), done))
    table = plain_table(headline(), "", "in s", "set-ups", "times as fast")
    for (workers, name), done in best.items():
        ratio = best[workers, "created for each test"].seconds / done.seconds
        table.add_row(f"{workers}, {name}", f"{done.seconds:.2f}", str(done.set_ups), f"{ratio:.1f}")
    show(f"{TESTS} tests with a set-up of {SET_UP * 1000:.0f} ms, pytest's own start included", table)
    write_json(options.json, {f"{workers}, {name}": done._asdict() for (workers, name), done in best.items()})


if __name__ == "__main__":
    main()
