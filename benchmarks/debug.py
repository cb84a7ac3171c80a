"""The cost of the debug mode while it is off.

Four kinds of process do the same work: one whose aiopool has no debug mode, because an empty module replaces it; one in
which it was never on; one in which it was on and is off again; and one in which it is on. The compared figure is how
many `list.pop()` + `list.append()` each operation takes, in processes that ran one right after the other.

What could make the figures misleading: two processes that do exactly the same differ by some percent, if only because
their memory is laid out differently. So look at the quartiles. And an aiopool without a debug mode still has the calls
to it: a get that finds nothing private compares two methods, and an `AsyncPool` calls an empty one for each object that
it creates. No hit and no put reaches them.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

from _debug_process import KINDS, OPERATIONS
from _report import arguments, headline, plain_table, show, write_json
from _timing import Spread

Figures = dict[str, float]


def main() -> None:
    options = arguments(__doc__, rounds=15, quick=3)
    found: dict[str, list[Figures]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind in random.sample(KINDS, len(KINDS)):
            found[kind].append(measure(kind))
    title = f"{headline()}\nTimes as long as without a debug mode"
    table = plain_table(title, "", *OPERATIONS)
    for kind in KINDS[1:]:
        table.add_row(kind, *(cell(found[kind], found[KINDS[0]], operation) for operation in OPERATIONS))
    show(table)
    write_json(options.json, {"in list pairs": found})


def measure(kind: str) -> Figures:
    """How many list pairs each operation takes, in a process of that kind."""
    program = Path(__file__).with_name("_debug_process.py")
    done = subprocess.run([sys.executable, program, kind], stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def cell(found: list[Figures], without: list[Figures], operation: str) -> str:
    spread = Spread.of(one[operation] / base[operation] for one, base in zip(found, without, strict=True))
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


if __name__ == "__main__":
    main()
