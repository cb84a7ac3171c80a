"""Do two loops on two cores do the work of two?

Throughput of two loops, and of four, divided by that of one, in one process: on one pool that all loops share, and on
a pool for each loop; with the C extension and in pure Python; beside a list behind a lock, a `queue.SimpleQueue`, and
Go's `sync.Pool` with GOMAXPROCS 1 and 2 if there is a Go toolchain. On two cores, 2.00 is the maximum, and four loops
should reach it as well.

Loops run in parallel only on a free-threaded build (`PYTHON_GIL=0` keeps extension modules from switching the GIL on).
With the GIL they take turns, so 1.00 is the maximum there.

Each round measures one loop on the first core, two loops, one on the second core, four loops, and the ratios are taken
within the round. The loops' threads are pinned to their cores where the system allows it. The garbage collector is off.

Where the system says for how long a thread waited for a core that another thread had (Linux does), that time is left
out for one loop and for two; the time that they wait for each other is not. Other work still makes two loops seem to
scale better than they do, because they work at the same time less often. Four loops wait for each other's cores, and
nothing is left out there.

What could make the figures misleading: other work on the two cores, and two cores that are hyperthreads of one core.
The rows of lists that are not shared show it: if they fall short of 2, the pool is not the cause. These loops do
nothing but gets and puts, so in a program two loops slow each other down less.
"""

from contextlib import ExitStack
from statistics import fmean

from _go import Go, go
from _loop_threads import cores
from _report import arguments, headline, plain_table, show, spread, write_json
from _scaling_case import Measured
from _timing import Spread
from _workers import IMPLEMENTATIONS, Message, worker
from rich.table import Table

IN_GO = ["get + put", "100 in flight", "100 gets, 67 puts"]


QUIET = 0.05
"""The share of the time that loops may wait for a core before the figures need a warning."""


class Scaling:
    """The results for one row: `Measured`, by the number of loops, for each round."""

    def __init__(self, rounds: list[Message]) -> None:
        self._rounds = [{loops: Measured(*each) for loops, each in one.items()} for one in rounds]

    def nanoseconds(self) -> Spread:
        """Nanoseconds for one operation of one loop."""
        return Spread.of(1e9 / each["1"].free_rate for each in self._rounds)

    def two(self) -> Spread:
        """Throughput of two loops divided by that of one."""
        return Spread.of(each["2"].free_rate / each["1"].free_rate for each in self._rounds)

    def four(self) -> Spread:
        """Throughput of four loops divided by that of one. Four have to wait for their two cores."""
        return Spread.of(each["4"].rate / each["1"].rate for each in self._rounds)

    def waited(self) -> list[float]:
        """The share of the time in which one loop or two waited for a core that another thread had."""
        return [each[loops].waited for each in self._rounds for loops in ("1", "2")]

    def figures(self) -> dict[str, object]:
        """The figures for the JSON file."""
        return {
            "ns": self.nanoseconds()._asdict(),
            "two loops": self.two()._asdict(),
            "four loops": self.four()._asdict(),
            "rounds": [{loops: each._asdict() for loops, each in one.items()} for one in self._rounds],
        }


Rows = dict[str, dict[str, Scaling]]
"""By section and name."""


def measure(rounds: int) -> tuple[dict[str, Rows], Go, dict[str, str]]:
    """Measure, and return the rows, Go's figures, and the environment of the processes that measured."""
    with ExitStack() as stack:
        golang = stack.enter_context(go())
        workers = {each: stack.enter_context(worker("_scaling_process.py", each)) for each in IMPLEMENTATIONS}
        found: dict[str, list[Message]] = {each: [] for each in IMPLEMENTATIONS}
        for _ in range(rounds):
            for name, each in workers.items():
                found[name].append(each.round())
            golang.round()
    abouts = {name: each.about for name, each in workers.items()}
    rows = {name: collect(abouts[name]["names"], found[name]) for name in IMPLEMENTATIONS}
    environment = abouts[IMPLEMENTATIONS[0]]["environment"]
    return rows, golang, {**environment, "implementation": " and ".join(IMPLEMENTATIONS)}


def collect(names: dict[str, list[str]], found: list[Message]) -> Rows:
    return {
        section: {name: Scaling([each[section][name] for each in found]) for name in rows}
        for section, rows in names.items()
    }


# --- the results ---


def table(title: str, rows: Rows) -> Table:
    result = plain_table(title, "", "1 loop, ns", "2 loops / 1", "4 loops / 1")
    for section, scalings in rows.items():
        result.add_row(section.upper())
        for name, scaling in scalings.items():
            times = f"{scaling.nanoseconds().median:,.0f}"
            result.add_row(f"  {name}", times, spread(scaling.two()), spread(scaling.four()))
        result.add_section()
    return result


def go_table(golang: Go) -> Table | str:
    if golang.unavailable:
        return f"Go's sync.Pool: {golang.unavailable}"
    result = plain_table(f"sync.Pool of {golang.version}", "", "GOMAXPROCS 1, ns", "GOMAXPROCS 2 / 1")
    for name in IN_GO:
        rounds = [rates[name] for rates in golang.rounds]
        times = Spread.of(1e9 / each["1"] for each in rounds)
        result.add_row(name, f"{times.median:.1f}", spread(Spread.of(each["2"] / each["1"] for each in rounds)))
    return result


def remarks(environment: dict[str, str], found: dict[str, Rows]) -> str:
    lines = []
    if environment["gil"] == "on":
        lines.append("The GIL is on: loops take turns and do not run in parallel, so 1.00 is the maximum.")
    if None in cores():
        lines.append("The threads are not pinned: there is only one core, or this system cannot pin threads.")
    scalings = [scaling for rows in found.values() for section in rows.values() for scaling in section.values()]
    share = fmean(share for scaling in scalings for share in scaling.waited())
    lines.append(f"One loop or two waited for a core that another thread had for {share:.0%} of the time.")
    if share > QUIET:
        lines.append(
            "On a machine that is so busy, two loops do not always work at the same time, so they scale worse than "
            "this says, and the figures of four loops are meaningless."
        )
    return "\n".join(lines)


def main() -> None:
    options = arguments(__doc__, rounds=15, quick=3)
    found, golang, environment = measure(options.rounds)
    show(headline(environment))
    show(*(table(name, rows) for name, rows in found.items()), go_table(golang), remarks(environment, found))
    write_json(
        options.json,
        {
            "rounds": options.rounds,
            "measured in": environment,
            **{
                name: {
                    section: {row: scaling.figures() for row, scaling in scalings.items()}
                    for section, scalings in rows.items()
                }
                for name, rows in found.items()
            },
            "go": {"version": golang.version, "rates": golang.rounds},
        },
    )


if __name__ == "__main__":
    main()
