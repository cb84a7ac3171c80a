"""The report at the end: a table, notes on it, and the verdict."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .._native import implementation
from .results import Measured, Results, bytes_text, seconds_text, verdict
from .user_code import UserCode


def show(console: Console, results: Results, code: UserCode) -> None:
    """Print the report."""
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
    """The measurements, each with the name of the allocator."""
    tuned = [] if results.tuned is None else [("tuned", results.tuned)]
    return [(results.allocator, results.in_use), *tuned]


def _notes(results: Results, code: UserCode) -> list[str]:
    measured = results.in_use
    notes = [
        "Times are per object: fresh ones are created, used and dropped; pooled ones are got, used, reset and put. "
        "Each is the fastest of many samples.",
    ]
    if measured.touched:
        notes.append("The object is memory, so each use writes to each page. With --use, your code runs instead.")
    elif not code.use:
        notes.append("Without --use, objects are only created and dropped; many defer their work until they are used.")
    if code.reset:
        notes.append(f"The reset takes {seconds_text(measured.reset)} of that.")
    else:
        notes.append("Without --reset, an object from the pool is as its last user left it.")
    if measured.memory:
        idle = bytes_text(measured.memory * measured.many.in_flight)
        notes.append(
            f"One object takes {bytes_text(measured.memory)} of memory. After {measured.many.in_flight} were in "
            f"flight, the pool keeps {idle} idle until cleanup cycles drop the objects that are not used."
        )
    if results.tuning:
        settings = " ".join(f"{name}={value}" for name, value in results.tuning.items())
        notes.append(f"Tuned means with {settings} in the environment.")
    if implementation == "python":
        notes.append("This is pure Python. With the C extension, a get and a put take a tenth of the time.")
    return notes
