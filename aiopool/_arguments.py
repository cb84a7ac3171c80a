"""Arguments that several commands share. Invalid ones are reported before anything starts."""

import argparse
import math
from pathlib import Path

LONGEST = 3600
"""The most seconds that a command may measure. A longer run gives no additional information."""


def seconds(text: str) -> float:
    """How long to measure, in seconds."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, such as 3 or 0.5")
    if not 0 < number <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range: more than 0, and at most {LONGEST} seconds")
    return number


def file(text: str) -> Path:
    """A file that can probably be written."""
    path = Path(text)
    # Checked now and not after minutes of measuring.
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a directory, not a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is in a directory that does not exist: {str(path.parent)!r}")
    return path
