"""The whole demo, from its introduction to its exit code."""

import asyncio
import json
import sys
import warnings
from pathlib import Path

from rich.console import Console

from .._buffer_pool import BufferPool
from .._native import implementation
from .loops import loop_name
from .measure import LoadError, Plan, measure
from .progress import RoundsShown
from .report import as_json, show
from .results import Results

STDOUT = Path("-")
"""Means stdout where a file name is expected."""


def demo(plan: Plan, json_file: Path | None) -> int:
    """Measure, show the results, write them to `json_file` if there is one, and return the exit code."""
    # If the numbers go to stdout, nothing else does.
    console = Console(stderr=json_file == STDOUT, highlight=False)
    try:
        results = asyncio.run(_measure(console, plan))
        show(console, plan, results)
        if json_file is not None:
            _write(json_file, json.dumps(as_json(plan, results), indent=2) + "\n")
    except (LoadError, OSError) as error:
        print(f"aiopool demo: {error}", file=sys.stderr)
        return 1
    return 1 if results.mismatches else 0


async def _measure(console: Console, plan: Plan) -> Results:
    # Printed only now that asyncio handles Ctrl-C, because the user may interrupt as soon as it is visible.
    console.print(_introduction(plan))
    with RoundsShown(console, plan.rounds) as shown:
        return await measure(plan, shown)


def _introduction(plan: Plan) -> str:
    loops = "one event loop" if plan.loops == 1 else f"{plan.loops} event loops, each in its thread"
    compiled = "compiled" if implementation == "native" else "pure Python"
    introduction = (
        f"A TCP server on {loops} ({loop_name()}), and a process that sends it messages of up to "
        f"{plan.size:,} random bytes over {plan.connections} connections. The server's handler runs over "
        f"asyncio.start_server and over aiopool.streams.start_server ({compiled}), in turns, {plan.rounds} rounds "
        f"each: about {2 * plan.seconds:.3g} seconds."
    )
    return "\n\n".join([introduction, *_warnings()])


def _warnings() -> list[str]:
    """The warnings at the first use of a buffer pool, shown here and not in the middle of the rounds."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        BufferPool().acquire(1)
    return [str(warning.message) for warning in caught]


def _write(file: Path, text: str) -> None:
    if file == STDOUT:
        sys.stdout.write(text)
    else:
        file.write_text(text, encoding="utf-8")
