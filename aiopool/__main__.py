"""The command line: `python -m aiopool demo`.

Nothing but arguments is dealt with here, so that a wrong one is told before anything starts, and without what the extra
`demo` brings.
"""

import argparse
import importlib.metadata
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

UNITS = {"": 1, "K": 2**10, "M": 2**20}

LARGEST_SIZE = 16 * UNITS["M"]
"""Each connection may hold a message of it twice: that makes 1 GiB, with two loops."""

MOST_LOOPS = 32

INTERRUPTED = 130
"""What shells make of a program that Ctrl-C ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what `arguments` say (`None`: those of the process); the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return _demo(options)
    except KeyboardInterrupt:
        print("aiopool demo: interrupted", file=sys.stderr)
        return INTERRUPTED


def _demo(options: argparse.Namespace) -> int:
    try:
        from ._demo.measure import Plan
        from ._demo.run import demo
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("psutil", "rich"):
            raise
        # From the checkout: the name aiopool on PyPI is another project's.
        print(f"aiopool demo: {missing} is missing; in the checkout, run: pip install '.[demo]'", file=sys.stderr)
        return 1
    return demo(Plan(options.seconds, options.size, options.loops), options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aiopool", description="Go's sync.Pool for Python's event loops.")
    parser.add_argument("--version", action="version", version=f"aiopool {_version()}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="command")
    demo = commands.add_parser(
        "demo",
        help="show on real traffic where streams over pooled buffers win and where they do not",
        description="Load a TCP server on loopback, over asyncio's streams and aiopool's, and show what each cost.",
    )
    demo.add_argument(
        "--seconds", type=_seconds, default=3.0, help="how long to measure each kind of streams (default: 3)"
    )
    demo.add_argument(
        "--size", type=_size, default="1M", help="the largest message, in bytes, or as 64K or 1M (default: 1M)"
    )
    demo.add_argument("--loops", type=_loops, default=2, help="how many event-loop threads the server has (default: 2)")
    demo.add_argument(
        "--json", type=_file, metavar="FILE", help="write the numbers to FILE as JSON; - stands for stdout"
    )
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("aiosyncpool")
    except importlib.metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]+)([KM]?)", text.strip().upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes, such as 65536, 64K or 1M")
    size = int(match[1]) * UNITS[match[2]]
    if not 1 <= size <= LARGEST_SIZE:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range: from 1 to {LARGEST_SIZE // UNITS['M']}M")
    return size


def _loops(text: str) -> int:
    loops = int(text) if re.fullmatch("[0-9]+", text) else 0
    if not 1 <= loops <= MOST_LOOPS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of loops from 1 to {MOST_LOOPS}")
    return loops


def _file(text: str) -> Path:
    file = Path(text)
    # Told now, and not when the measuring is done.
    if file.is_dir() or not file.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a file in a directory that exists")
    return file


if __name__ == "__main__":
    sys.exit(main())
