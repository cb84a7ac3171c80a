"""The arguments of `python -m aiopool advise`, and what they do."""

import argparse
import sys

from .._arguments import file, seconds
from .user_code import UserCode, UserCodeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("expression", help="what creates an object, as 'zstandard.ZstdCompressor()'")
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="what the expression needs, as zstandard or 'numpy as np'; may be given several times",
    )
    parser.add_argument(
        "--use", default="", metavar="CODE", help="what is done with each object, as 'obj.compress(bytes(1000))'"
    )
    parser.add_argument(
        "--reset", default="", metavar="CODE", help="what makes an object as good as new, as 'obj.clear()'"
    )
    parser.add_argument("--seconds", type=seconds, default=4.0, help="how long to measure in all (default: 4)")
    parser.add_argument("--plot", type=file, metavar="FILE", help="draw the times, to an SVG file")


def run(options: argparse.Namespace) -> int:
    """Measure and show; the exit code.

    :raises ModuleNotFoundError: what the extra `advise` brings is missing.
    """
    from rich.console import Console

    from .plot import write_plot
    from .report import show
    from .run import MeasuringError, measure_all

    console = Console(highlight=False)
    code = UserCode(options.expression, options.imports, options.use, options.reset)
    try:
        code.check()
        results = measure_all(code, options.seconds, console)
        show(console, results, code)
        if options.plot is not None:
            write_plot(results, options.plot)
    except (UserCodeError, MeasuringError, OSError) as error:
        # What is shown of the user's code has lines of its own.
        print("aiopool advise:", error, sep="\n" if "\n" in str(error) else " ", file=sys.stderr)
        return 1
    return 0
