"""Runs a benchmark once with each allocator, because figures that do not name their allocator mislead.

With its defaults glibc returns large blocks to the system as soon as they are freed, and the next one is faulted in
again, page by page. Tuned, it keeps them; so does jemalloc. Fresh buffers then cost a fraction, and pooling gains less.
aiopool's own blocks of 64 KiB and more do not come from malloc on Linux.

Each run is a process of its own, because the allocator is chosen when a process starts.
"""

import ctypes.util
import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from _report import write_json


class Allocator(NamedTuple):
    """One way to allocate."""

    name: str
    environment: dict[str, str]


TUNED = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""Blocks up to 32 MiB come from the heap, and up to 256 MiB of free heap are kept."""


def allocators() -> list[Allocator]:
    """The allocators on this machine. jemalloc is in Debian's package libjemalloc2."""
    if not sys.platform.startswith("linux"):
        return [Allocator("the system's", {})]
    jemalloc = ctypes.util.find_library("jemalloc")
    return [
        Allocator("glibc", {}),
        Allocator("glibc, tuned", TUNED),
        *([] if jemalloc is None else [Allocator("jemalloc", {"LD_PRELOAD": jemalloc})]),
    ]


def environment_of(allocator: Allocator) -> dict[str, str]:
    """The environment of this process, changed to choose this allocator and no other."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))}
    return {**bare, **allocator.environment}


def by_allocator(
    program: str, options: Namespace, measure: Callable[[int], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The figures of `measure(rounds)` with each allocator, or with `--here` in this process. Also writes `--json`."""
    if options.here:
        figures = measure(options.rounds)
        write_json(options.json, {"rounds": options.rounds, **figures})
        return {"the allocator of this process": figures}
    of_each = run_with_each(program, options.rounds)
    write_json(options.json, {"rounds": options.rounds, "allocators": of_each})
    return of_each


def run_with_each(program: str, rounds: int) -> dict[str, dict[str, Any]]:
    """The figures that `program --here` writes with each allocator."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "figures.json")
        for allocator in allocators():
            command = [sys.executable, program, "--here", "--rounds", str(rounds), "--json", str(file)]
            subprocess.run(command, env=environment_of(allocator), stdout=subprocess.DEVNULL, check=True)
            figures[allocator.name] = json.loads(file.read_text(encoding="utf-8"))
    return figures
