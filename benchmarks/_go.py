"""Go's own `sync.Pool`, run beside aiopool if there is a Go toolchain.

The program in `go/` needs nothing but the standard library. It is built into a temporary directory, so that nothing
stays behind in the checkout, and run once a round, in turns with the measurements in Python.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _loop_threads import cores

SOURCE = Path(__file__).with_name("go")

Rates = dict[str, dict[str, float]]
"""Gets per second, by operation and by GOMAXPROCS."""


class Go:
    """The built program, or the reason why there is none."""

    def __init__(self, program: Path | None, unavailable: str = "") -> None:
        self._program = program
        self.unavailable = unavailable
        self.version = ""
        self.rounds: list[Rates] = []

    def round(self) -> None:
        """Measure once, if there is a toolchain."""
        if self._program is not None:
            pinned = [str(core) for core in cores() if core is not None]
            done = subprocess.run([self._program, *pinned], stdout=subprocess.PIPE, check=True)
            answer = json.loads(done.stdout)
            self.version = answer["version"]
            self.rounds.append(answer["rates"])


@contextmanager
def go() -> Iterator[Go]:
    """The program, built when the block begins and deleted when it ends."""
    tool = shutil.which("go")
    if tool is None:
        yield Go(None, "left out: there is no Go toolchain in PATH")
        return
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "pool.exe" if os.name == "nt" else "pool")
        # Fetch nothing: the program needs no modules, and must not download another toolchain.
        environment = {**os.environ, "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOWORK": "off"}
        built = subprocess.run(
            [tool, "build", "-o", program, "."], cwd=SOURCE, env=environment, stderr=subprocess.PIPE, text=True
        )
        yield Go(program) if built.returncode == 0 else Go(None, f"left out: it does not build: {built.stderr.strip()}")
