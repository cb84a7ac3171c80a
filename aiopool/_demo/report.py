"""The report at the end: two tables, then sentences that say where pooling won and where it did not."""

from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from .._native import implementation
from ..stats import BufferStats, ProcessorStats
from .loops import loop_name
from .measure import Plan
from .results import Comparison, Results, Verdict

KIB = 1024
MIB = 1024 * KIB

FORMATS: dict[str, Callable[[float], str]] = {
    "messages_per_second": lambda value: f"{value:,.0f}",
    "cpu_seconds_per_message": lambda value: f"{value * 1e6:,.1f} µs",
    "resident_peak_bytes": lambda value: f"{value / MIB:.1f} MiB",
    "resident_end_bytes": lambda value: f"{value / MIB:.1f} MiB",
}
"""How a figure is written, by the key of its metric."""

VERDICTS: dict[Verdict, str] = {
    "won": "[bold green]aiopool won[/]",
    "lost": "[bold red]aiopool lost[/]",
    "no clear difference": "[bold yellow]No clear difference[/]",
}

SOURCES = {
    "private": "the loop's private slot",
    "shared": "its shared list",
    "stolen": "another loop",
    "victim": "the victim",
    "created": "new memory",
}
"""Where buffers come from, in the order in which a get searches."""

SMALL = 16 * KIB
"""Copying this many bytes takes no more than a microsecond or two."""


def as_json(plan: Plan, results: Results) -> dict[str, Any]:
    """The figures of the tables as plain data, with sizes in bytes and times in seconds."""
    return {
        "implementation": implementation,
        "loop": loop_name(),
        "loops": plan.loops,
        "connections": plan.connections,
        "largest_message": plan.size,
        "seconds": plan.seconds,
        "rounds": plan.rounds,
        "messages": results.messages,
        "mismatches": results.mismatches,
        "metrics": {each.metric.key: _comparison_as_json(each) for each in results.comparisons()},
        "buffers": _buffers_as_json(results.buffers),
    }


def _comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "asyncio": comparison.asyncio,
        "aiopool": comparison.aiopool,
        "ratio": comparison.ratio,
        "rounds_better": comparison.better,
        "rounds_worse": comparison.worse,
        "aiopool_verdict": comparison.verdict,
    }


def _buffers_as_json(buffers: BufferStats) -> dict[str, Any]:
    return {
        "served": buffers.served,
        "created": buffers.created,
        "hit_rate": buffers.hit_rate,
        "bytes_idle": buffers.bytes_idle,
        "cleanup_cycles": buffers.cycles,
        "classes": [
            {
                "size": each.size,
                "served": each.served,
                "created": each.blocks.created,
                "hit_rate": each.blocks.hit_rate,
                "waste": each.waste,
            }
            for each in buffers.classes
            if each.served
        ],
        "processors": [
            {"id": id, **{source: sum(getattr(each, source) for each in entries) for source in SOURCES}}
            for id, entries in _by_processor(buffers).items()
        ],
    }


def _by_processor(buffers: BufferStats) -> dict[int, list[ProcessorStats]]:
    """The counts of all size classes, by processor."""
    entries: dict[int, list[ProcessorStats]] = {}
    for size_class in buffers.classes:
        for each in size_class.blocks.processors:
            entries.setdefault(each.id, []).append(each)
    return entries


def show(console: Console, plan: Plan, results: Results) -> None:
    """Print the whole report."""
    comparisons = results.comparisons()
    console.print("\n[bold]asyncio's streams and aiopool's[/]", _metrics_table(comparisons))
    console.print(
        f"Medians of {plan.rounds} rounds each. The ratio, aiopool to asyncio, is the median over pairs of adjacent "
        "rounds. CPU time and resident size are those of the server's process. Freed memory that its allocator keeps "
        "still counts in later rounds.",
        style="dim",
    )
    console.print("\n[bold]What the buffer pool did[/]", _buffers_table(results.buffers))
    console.print(_life_of_buffers(plan, results.buffers), style="dim")
    for verdict, heading in VERDICTS.items():
        chosen = [each for each in comparisons if each.verdict == verdict]
        if chosen:
            console.print(f"\n{heading}", _sentences(chosen, plan.rounds))
    console.print(f"\n{_advice(plan, comparisons)}")
    console.print(f"\n{_correctness(results)}")


def _metrics_table(comparisons: list[Comparison]) -> Table:
    table = Table("", box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("asyncio", "aiopool", "ratio"):
        table.add_column(heading, justify="right")
    for each in comparisons:
        write = FORMATS[each.metric.key]
        table.add_row(each.metric.name, write(each.asyncio), write(each.aiopool), f"{each.ratio:.2f}")
    return table


def _buffers_table(buffers: BufferStats) -> Table:
    table = Table("size class", box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("served", "created", "hit rate", "waste"):
        table.add_column(heading, justify="right")
    for each in buffers.classes:
        if each.served:
            created, hit_rate = each.blocks.created, each.blocks.hit_rate
            table.add_row(_size(each.size), f"{each.served:,}", f"{created:,}", f"{hit_rate:.1%}", f"{each.waste:.0%}")
    table.add_row("all", f"{buffers.served:,}", f"{buffers.created:,}", f"{buffers.hit_rate:.1%}")
    return table


def _size(size: int) -> str:
    return f"{size / KIB:g} KiB" if size < MIB else f"{size / MIB:g} MiB"


def _life_of_buffers(plan: Plan, buffers: BufferStats) -> str:
    counts = {name: sum(getattr(each.blocks, source) for each in buffers.classes) for source, name in SOURCES.items()}
    came = ", ".join(f"{name} {count / buffers.served:.1%}" for name, count in counts.items() if count)
    return (
        f"Waste is the part of a buffer beyond the requested size. Buffers came from: {came}. "
        f"{buffers.bytes_idle / MIB:.1f} MiB were idle when the last round ended; each round starts with an empty "
        "pool. "
        f"{buffers.cycles} cleanup cycles: with an idle_timeout of {plan.idle_timeout:.2g} s, each round has at least "
        "one."
    )


def _sentences(comparisons: list[Comparison], rounds: int) -> Table:
    # A grid, because its cells have a hanging indent.
    grid = Table.grid(padding=(0, 1))
    for each in comparisons:
        grid.add_row(" -", _sentence(each, rounds))
    return grid


def _sentence(comparison: Comparison, rounds: int) -> str:
    name, write = comparison.metric.name, FORMATS[comparison.metric.key]
    medians = f"{write(comparison.aiopool)} against {write(comparison.asyncio)}"
    if comparison.verdict == "no clear difference":
        # Without a percentage, which would suggest a difference that was not found.
        return (
            f"{name}: {medians} in the median; better in {comparison.better} of {rounds} rounds, worse in "
            f"{comparison.worse}"
        )
    turns = f"better in {comparison.better}" if comparison.verdict == "won" else f"worse in {comparison.worse}"
    return f"{name}: {_how_much(comparison.ratio)}, {medians}; {turns} of {rounds} rounds"


def _how_much(ratio: float) -> str:
    if ratio >= 2:
        return f"{ratio:.1f} times as much"
    return f"{abs(ratio - 1):.0%} {'more' if ratio > 1 else 'less'}"


def _advice(plan: Plan, comparisons: list[Comparison]) -> str:
    """Likely reasons for the result, and what to try next."""
    advice = []
    if implementation == "python":
        advice.append(
            "This was aiopool's pure Python implementation, in which a buffer costs several microseconds. With the C "
            "extension it costs a tenth of a microsecond: install aiopool where there is a C compiler, and compare."
        )
    saved_time = any(each.verdict == "won" for each in comparisons if not each.metric.key.startswith("resident"))
    if plan.size > SMALL:
        advice.append("Small messages give different results: try --size 64K and --size 1K.")
    elif not saved_time:
        advice.append(
            "aiopool's streams save copies, and messages this small are copied quickly, so there is little to gain. "
            "Try --size 1M."
        )
    return "\n".join(advice)


def _correctness(results: Results) -> str:
    if results.mismatches:
        return f"[bold red]WRONG: {results.mismatches:,} of {results.messages:,} answers do not match their message.[/]"
    return f"All {results.messages:,} answers match their message."
