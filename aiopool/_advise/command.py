"""The command `python -m aiopool advise` and its arguments."""

import argparse
import sys

from .._arguments import file, seconds
from .user_code import UserCode, UserCodeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("expression", help="creates an object, such as 'zstandard.ZstdCompressor()'")
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module that the code needs, such as zstandard or 'numpy as np'; may be given several times",
    )
    parser.add_argument("--use", default="", metavar="CODE", help="uses an object, such as 'obj.compress(bytes(1000))'")
    parser.add_argument("--reset", default="", metavar="CODE", help="restores a used object, such as 'obj.clear()'")
    parser.add_argument("--seconds", type=seconds, default=4.0, help="how long to measure in total (default: 4)")
    parser.add_argument("--plot", type=file, metavar="FILE", help="draw a chart of the times, to an SVG file")


def run(options: argparse.Namespace) -> int:
    """Measure, show the results, and return the exit code.

    :raises ModuleNotFoundError: a package of the extra `advise` is not installed.
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
        # A message that shows the user's code has several lines, and starts on a new one.
        print("aiopool advise:", error, sep="\n" if "\n" in str(error) else " ", file=sys.stderr)
        return 1
    return 0
