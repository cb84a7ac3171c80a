"""The cost of a get and a put, beside everything a program could use instead.

Each path of aiopool, with the C extension and in pure Python, and beside them the standard library's containers,
creating the object each time, the pools found on PyPI, and Go's `sync.Pool` if there is a Go toolchain. All in one run,
inside running asyncio loops, in turns (`_timing.py` and `_workers.py` say how). The result is the ratio to
`list.pop()` + `list.append()` in the same process; for `async with`, to one that does nothing; for the first get in a
context, a difference in nanoseconds.

Two things decide what a get + put costs in a program, and each has its row: how many objects are in flight at once
(one lies in the private slot; the others go through the shared list), and in what context the task runs (in a new
task's context, its processor may not have been found before).

What could make the figures misleading: one thread works alone, so no row shows how threads slow each other down
(`scaling.py` does). Go is compiled, so nanoseconds beside Go's compare languages as well as pools.
"""

from contextlib import ExitStack

import _other_pools
from _containers import EMPTY_LOOP, FRESH, LIST, LIST_IN_FLIGHT, QUEUES
from _contexts import CONTEXTS, TASKS, WARM
from _go import Go, go
from _operations import ASYNC_PATHS, BARE_ASYNC_WITH, GET_PUT, IN_FLIGHT_PAIR, MISS, PATHS, STEAL
from _report import arguments, headline, plain_table, show, spread, write_json
from _timing import IN_FLIGHT, Candidate, Results, Spread
from _workers import IMPLEMENTATIONS, worker
from rich.table import Table

Measured = dict[str, Results]
"""The results, by implementation."""

OTHERS = [
    [LIST, EMPTY_LOOP, LIST_IN_FLIGHT],
    QUEUES,
    list(FRESH.values()),
    _other_pools.CANDIDATES,
    _other_pools.MANY_IN_FLIGHT,
]

IN_GO = {GET_PUT: "get + put", IN_FLIGHT_PAIR: "100 in flight", STEAL: "steal", MISS: "miss"}


def measure(rounds: int) -> tuple[Measured, Go, dict[str, str]]:
    """Measure, and return the results, Go's, and the environment of the process that measured."""
    with ExitStack() as stack:
        golang = stack.enter_context(go())
        workers = {each: stack.enter_context(worker("_get_put_process.py", each)) for each in IMPLEMENTATIONS}
        measured = {name: Results(unavailable=each.about["unavailable"]) for name, each in workers.items()}
        for _ in range(rounds):
            for name, each in workers.items():
                measured[name].add(each.round())
            golang.round()
    environment = workers[IMPLEMENTATIONS[0]].about["environment"]
    return measured, golang, {**environment, "implementation": " and ".join(IMPLEMENTATIONS)}


# --- tables ---


def ratios_table(measured: Measured, title: str, unit: str, base: Candidate, candidates: list[Candidate]) -> Table:
    """Each of `candidates`, as a multiple of `base`."""
    table = by_implementation(title, unit)
    for candidate in candidates:
        cells = [candidate.name]
        for results in measured.values():
            cells += [median(results, candidate), spread(results.ratio(candidate.name, base.name))]
        table.add_row(*cells)
    return table


def contexts_table(measured: Measured) -> Table:
    table = by_implementation(f"contexts; {TASKS:,} tasks at a time", "ns over warm")
    for candidate in CONTEXTS:
        cells = [candidate.name]
        for results in measured.values():
            cells += [median(results, candidate), over_warm(results, candidate)]
        table.add_row(*cells)
    return table


def by_implementation(title: str, unit: str) -> Table:
    columns = [column for each in IMPLEMENTATIONS for column in (f"{each}, ns", unit)]
    return plain_table(title, "", *columns)


def others_table(results: Results) -> Table:
    table = plain_table("instead of a pool", "", "ns", "list pairs", "get + puts")
    for section in OTHERS:
        for candidate in section:
            if candidate.name in results.unavailable:
                table.add_row(candidate.name, "", results.unavailable[candidate.name])
            else:
                table.add_row(
                    candidate.name,
                    median(results, candidate),
                    spread(results.ratio(candidate.name, LIST.name)),
                    f"{results.ratio(candidate.name, GET_PUT.name).median:.2f}",
                )
        table.add_section()
    return table


def go_table(measured: Measured, golang: Go) -> Table | str:
    if golang.unavailable:
        return f"Go's sync.Pool: {golang.unavailable}"
    title = f"in nanoseconds: sync.Pool of {golang.version}, one goroutine, and aiopool"
    table = plain_table(title, "", "Go", *measured)
    for candidate, name in IN_GO.items():
        times = Spread.of(1 / rates[name]["1"] for rates in golang.rounds)
        ours = (median(results, candidate) for results in measured.values())
        table.add_row(candidate.name, spread(in_nanoseconds(times)), *ours)
    return table


def over_warm(results: Results, candidate: Candidate) -> str:
    if candidate not in WARM:
        return ""
    return spread(in_nanoseconds(results.over(candidate.name, WARM[candidate].name)))


def median(results: Results, candidate: Candidate) -> str:
    """In nanoseconds."""
    return f"{in_nanoseconds(results.time(candidate.name)).median:,.0f}"


def in_nanoseconds(seconds: Spread) -> Spread:
    return Spread(*(each * 1e9 for each in seconds))


# --- where pooling loses ---


def verdict(results: Results) -> str:
    """Where pooling loses, in words."""
    lines = [against_list(results), against_fresh(results), in_flight(results)]
    return "\n".join(f"- {line}" for line in lines)


def against_list(results: Results) -> str:
    ratio = results.ratio(GET_PUT.name, LIST.name).median
    return f"A get + put costs {ratio:.2f} list pairs. If one thread does everything and never frees, use a list."


def against_fresh(results: Results) -> str:
    ratios = {size: results.ratio(each.name, GET_PUT.name).median for size, each in FRESH.items()}
    sizes = ", ".join(f"{ratio:.2f} for {size}" for size, ratio in ratios.items())
    loses = [size for size, ratio in ratios.items() if ratio < 1]
    advice = f"Do not pool bytearrays of {' or '.join(loses)}. " if loses else ""
    return f"A fresh bytearray costs, in get + puts, {sizes}. {advice}Clearing a pooled one costs extra."


def in_flight(results: Results) -> str:
    cost = results.ratio(IN_FLIGHT_PAIR.name, GET_PUT.name).median
    others = [each.name for each in _other_pools.MANY_IN_FLIGHT if each.name in results.seconds]
    cheaper = [name.partition(",")[0] for name in others if results.ratio(name, IN_FLIGHT_PAIR.name).high < 1]
    remark = f" There, these pools are cheaper: {', '.join(cheaper)}." if cheaper else ""
    return (
        f"The first row is for one object in flight at a time. With {IN_FLIGHT}, all but one go through the shared "
        f"list, and a get + put costs {cost:.1f} times as much.{remark}"
    )


# --- all of it ---


def figures(results: Results) -> dict[str, object]:
    return {
        **{
            name: {
                "seconds": results.time(name)._asdict(),
                "ratio to": {
                    base.name: results.ratio(name, base.name)._asdict() for base in (LIST, GET_PUT, BARE_ASYNC_WITH)
                },
            }
            for name in results.seconds
        },
        "seconds over warm": {
            first.name: results.over(first.name, warm.name)._asdict() for first, warm in WARM.items()
        },
        "unavailable": results.unavailable,
    }


def main() -> None:
    options = arguments(__doc__, rounds=30, quick=5)
    measured, golang, environment = measure(options.rounds)
    first = measured[IMPLEMENTATIONS[0]]
    show(
        headline(environment),
        ratios_table(measured, "Pool", "list pairs", LIST, PATHS),
        ratios_table(measured, "AsyncPool, plain new", "bare async withs", BARE_ASYNC_WITH, ASYNC_PATHS),
        contexts_table(measured),
        others_table(first),
        go_table(measured, golang),
        *(f"Where pooling loses ({name}):\n{verdict(results)}" for name, results in measured.items()),
    )
    write_json(
        options.json,
        {
            "rounds": options.rounds,
            "measured in": environment,
            **{name: figures(results) for name, results in measured.items()},
            "go": {"version": golang.version, "rates": golang.rounds},
        },
    )


if __name__ == "__main__":
    main()
