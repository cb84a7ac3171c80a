"""The command line: `python -m aiopool demo`, `advise` and `top`.

This module only parses arguments, so that invalid ones are reported before anything starts, even if the extras are not
installed.
"""

import argparse
import importlib.metadata
import re
import sys
from collections.abc import Sequence

from ._advise import command as _advise
from ._arguments import file, seconds
from ._top import command as _top

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

LARGEST_SIZE = 16 * UNITS["M"]
"""In bytes. Each connection may hold two messages of this size, 1 GiB in all with two loops."""

MOST_LOOPS = 32

INTERRUPTED = 130
"""The exit code that shells use for a program ended by Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments`, by default those of the process, and return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        exit_code: int = options.run(options)
        return exit_code
    except KeyboardInterrupt:
        print(f"aiopool {options.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("psutil", "rich"):
            raise
        # From a checkout, because the name aiopool on PyPI belongs to another project.
        command = options.command
        print(
            f"aiopool {command}: {missing} is not installed; in a checkout, run: pip install '.[{command}]'",
            file=sys.stderr,
        )
        return 1


def _demo(options: argparse.Namespace) -> int:
    from ._demo.measure import Plan
    from ._demo.run import demo

    return demo(Plan(options.seconds, options.size, options.loops), options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aiopool", description="Go's sync.Pool for Python's event loops.")
    parser.add_argument("--version", action="version", version=f"aiopool {_version()}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="command")
    demo = commands.add_parser(
        "demo",
        help="measure a real server, with asyncio's streams and with aiopool's",
        description="Put a TCP server on loopback under load, over asyncio's streams and over aiopool's, and show how "
        "much each costs.",
    )
    demo.add_argument(
        "--seconds", type=seconds, default=3.0, help="how long to measure each kind of stream (default: 3)"
    )
    demo.add_argument(
        "--size", type=_size, default="1M", help="the largest message, in bytes, such as 65536, 64K or 1M (default: 1M)"
    )
    demo.add_argument("--loops", type=_loops, default=2, help="how many event-loop threads the server has (default: 2)")
    demo.add_argument("--json", type=file, metavar="FILE", help="also write the figures to FILE as JSON; - is stdout")
    demo.set_defaults(run=_demo)
    advise = commands.add_parser(
        "advise",
        help="measure whether pooling pays off for one kind of object",
        description="Measure what an object costs when it is created and when it comes from a pool, and say whether "
        "pooling pays off.",
    )
    _advise.add_arguments(advise)
    advise.set_defaults(run=_advise.run)
    top = commands.add_parser(
        "top",
        help="show what the pools of a running process do",
        description="Show what the pools of a running process do, once a second. Needs CPython 3.14 for both "
        "this command and that process.",
    )
    _top.add_arguments(top)
    top.set_defaults(run=_top.run)
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("aiosyncpool")
    except importlib.metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]+)([KMGT]?)", text.strip().upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes, such as 65536, 64K or 1M")
    size = int(match[1]) * UNITS[match[2]]
    if not 1 <= size <= LARGEST_SIZE:
        raise argparse.ArgumentTypeError(
            f"{text!r} is out of range: at least 1 byte, at most {LARGEST_SIZE // UNITS['M']}M"
        )
    return size


def _loops(text: str) -> int:
    if not re.fullmatch("-?[0-9]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of loops, such as 2")
    loops = int(text)
    if not 1 <= loops <= MOST_LOOPS:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range: from 1 to {MOST_LOOPS} loops")
    return loops


if __name__ == "__main__":
    sys.exit(main())
