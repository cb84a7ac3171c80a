"""The command line of the benchmarks, the head above a table, and the JSON file.

The head says what was measured and where, because another interpreter, the other implementation or a build without a
GIL gives other figures. It is written after all imports: on a free-threaded build, importing an extension module that
does not support free threading switches the GIL back on (`PYTHON_GIL=0` keeps it off).
"""

import json
import platform
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from _timing import Spread
from rich.box import SIMPLE
from rich.console import Console, RenderableType
from rich.table import Table

import aiopool

KIB = 1024
MIB = 1024 * KIB

WIDTH = 110
"""The width of tables if the output is not a terminal."""


def arguments(doc: str | None, *, rounds: int, quick: int, each_allocator: bool = False) -> Namespace:
    """Parse the command line of a benchmark whose module docstring is `doc`.

    `each_allocator`: the benchmark runs once with each allocator, unless `--here` is given.
    """
    parser = ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument(
        "--rounds", type=positive_integer, default=rounds, help="how often to measure (default: %(default)s)"
    )
    parser.add_argument(
        "--quick", dest="rounds", action="store_const", const=quick, help=f"for a first look: --rounds {quick}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to FILE")
    if each_allocator:
        parser.add_argument("--here", action="store_true", help="measure in this process, with its allocator")
    return parser.parse_args()


def positive_integer(text: str) -> int:
    """The value of an argument. argparse shows the name of this function if the value is wrong."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def environment() -> dict[str, str]:
    """The interpreter, the implementation and the platform that were measured."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "gil": "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off",
        "implementation": aiopool.implementation,
        "platform": f"{platform.system()} {platform.machine()}",
    }


def headline(about: dict[str, str] | None = None) -> str:
    """The environment in one line: that of this process, or `about` from another one."""
    about = about or environment()
    return f"{about['python']}, GIL {about['gil']}, aiopool {about['implementation']}, {about['platform']}"


def plain_table(title: str, first: str, *others: str) -> Table:
    """An empty table: words in the `first` column, figures in the `others`."""
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def spread(values: Spread) -> str:
    """A median and its quartiles, with as many digits as are significant."""
    digits = 0 if abs(values.median) >= 20 else 1 if abs(values.median) >= 3 else 2
    return f"{values.median:,.{digits}f} ({values.low:,.{digits}f} to {values.high:,.{digits}f})"


def name_of(size: int) -> str:
    """A number of bytes, in the largest unit that fits."""
    for unit, name in (MIB, "MiB"), (KIB, "KiB"):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def side_by_side(title: str, of_each: dict[str, dict[str, dict[str, float]]]) -> Table:
    """A table with a column for each allocator; a figure is a `Spread` as a dict, by allocator and row."""
    table = plain_table(title, "", *of_each)
    for row in next(iter(of_each.values())):
        table.add_row(row, *(spread(Spread(**rows[row])) for rows in of_each.values()))
    return table


def show(*parts: RenderableType) -> None:
    """Print `parts`, one below the other."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for part in parts:
        console.print(part, highlight=False)
        console.print()


def write_json(file: Path | None, figures: dict[str, Any]) -> None:
    """Write `figures` and the environment to `file`, unless it is `None`."""
    if file is not None:
        file.write_text(json.dumps({"environment": environment(), **figures}) + "\n", encoding="utf-8")
