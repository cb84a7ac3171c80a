"""What is shown at the end: a table, what an object takes, and the verdict."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .._native import implementation
from .results import Measured, Results, bytes_text, seconds_text, verdict
from .user_code import UserCode


def show(console: Console, results: Results, code: UserCode) -> None:
    """Print it all."""
    console.print(f"\n[bold]{escape(results.create)}[/]", _table(results))
    for line in _notes(results, code):
        console.print(f"- {line}")
    console.print(f"\n[bold]{escape(verdict(results))}[/]", soft_wrap=True)


def _table(results: Results) -> Table:
    table = Table("in flight", "allocator", box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("fresh", "pooled", "ratio"):
        table.add_column(heading, justify="right")
    for allocator, measured in named(results):
        for case in (measured.one, measured.many):
            times = (seconds_text(case.fresh), seconds_text(case.pooled), f"{case.ratio:.2f}")
            table.add_row(str(case.in_flight), allocator, *times)
    return table


def named(results: Results) -> list[tuple[str, Measured]]:
    """What was measured, with the name of the allocator."""
    tuned = [] if results.tuned is None else [("tuned", results.tuned)]
    return [(results.allocator, results.in_use), *tuned]


def _notes(results: Results, code: UserCode) -> list[str]:
    measured = results.in_use
    notes = [
        "Times are for each object: created, used and dropped; or got, used, reset and put. Each is the quickest of "
        "many samples.",
    ]
    if measured.touched:
        notes.append("It is memory, so each use writes to each of its pages. With --use it is your use that counts.")
    elif not code.use:
        notes.append("No --use: objects are only created and dropped, and many put off their work until they are used.")
    if code.reset:
        notes.append(f"The reset takes {seconds_text(measured.reset)} of it.")
    else:
        notes.append("No --reset: what comes from the pool is as its last user left it.")
    if measured.memory:
        idle = bytes_text(measured.memory * measured.many.in_flight)
        notes.append(
            f"One takes {bytes_text(measured.memory)} of memory. After {measured.many.in_flight} were in flight, the "
            f"pool holds {idle} idle until cleanup cycles drop what is not used."
        )
    if results.tuning:
        settings = " ".join(f"{name}={value}" for name, value in results.tuning.items())
        notes.append(f"Tuned means: {settings} in the environment.")
    if implementation == "python":
        notes.append("This is pure Python: with the C extension a get and a put take a tenth of the time.")
    return notes
