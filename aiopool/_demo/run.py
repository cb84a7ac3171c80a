"""The demo from its first line to its exit code."""

import asyncio
import json
import sys
from pathlib import Path

from rich.console import Console

from .loops import loop_name
from .measure import LoadError, Plan, measure
from .progress import RoundsShown
from .report import as_json, show
from .results import Results

STDOUT = Path("-")
"""Stands for stdout where the name of a file is expected."""


def demo(plan: Plan, json_file: Path | None) -> int:
    """Measure, show, and write the numbers to `json_file` if there is one; the exit code."""
    # Where the numbers go to stdout, nothing else does.
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
    # Not before asyncio listens to Ctrl-C: who reads it may interrupt at once.
    console.print(_introduction(plan))
    with RoundsShown(console, plan.rounds) as shown:
        return await measure(plan, shown)


def _introduction(plan: Plan) -> str:
    loops = "one event loop" if plan.loops == 1 else f"{plan.loops} event loops, each in its thread"
    return (
        f"A TCP server on {loops} ({loop_name()}), and a process that sends it messages of up to "
        f"{plan.size:,} random bytes over {plan.connections} connections. "
        f"{plan.rounds} rounds with fresh buffers and {plan.rounds} with pooled ones, in turns: "
        f"about {2 * plan.seconds:.3g} seconds."
    )


def _write(file: Path, text: str) -> None:
    if file == STDOUT:
        sys.stdout.write(text)
    else:
        file.write_text(text, encoding="utf-8")
