"""What is shown at the end: two tables, and in words where pooling won and where it did not."""

import os
import platform
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..stats import PoolStats, ProcessorStats
from .loops import loop_name
from .measure import Plan
from .results import Comparison, Results, Verdict

FORMATS: dict[str, Callable[[float], str]] = {
    "messages_per_second": lambda value: f"{value:,.0f}",
    "cpu_seconds_per_message": lambda value: f"{value * 1e6:,.1f} µs",
    "buffers_made_per_message": lambda value: f"{value:.2g}",
    "resident_peak_bytes": lambda value: f"{value / 2**20:.1f} MiB",
    "resident_end_bytes": lambda value: f"{value / 2**20:.1f} MiB",
}
"""How a number is written, by the key of its metric."""

VERDICTS: dict[Verdict, str] = {
    "won": "[bold green]Pooling won[/]",
    "lost": "[bold red]Pooling lost[/]",
    "no clear difference": "[bold yellow]No clear difference[/]",
}

KINDS = ("private", "shared", "stolen", "victim")
"""The kinds of hits, in the order in which a get tries them."""

MMAP_THRESHOLD = "MALLOC_MMAP_THRESHOLD_"
"""The environment variable that has glibc ask the kernel for each block of so many bytes or more, and give it back."""

BIG = 65536
"""What to set it to."""


def as_json(plan: Plan, results: Results) -> dict[str, Any]:
    """The numbers of the tables, for programs: sizes in bytes, times in seconds."""
    return {
        "loop": loop_name(),
        "loops": plan.loops,
        "connections": plan.connections,
        "largest_message": plan.size,
        "seconds": plan.seconds,
        "rounds": plan.rounds,
        "messages": results.messages,
        "mismatches": results.mismatches,
        "metrics": {each.metric.key: _comparison_as_json(each) for each in results.comparisons()},
        "processors": [
            {"id": each.id, **{kind: getattr(each, kind) for kind in KINDS}, "made": each.made}
            for each in results.pool.processors
        ],
        "cleanup_cycles": results.pool.cycles,
    }


def _comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "fresh": comparison.fresh,
        "pooled": comparison.pooled,
        "ratio": comparison.ratio,
        "rounds_better": comparison.better,
        "rounds_worse": comparison.worse,
        "pooling": comparison.verdict,
    }


def show(console: Console, plan: Plan, results: Results) -> None:
    """Print everything there is to say."""
    comparisons = results.comparisons()
    console.print("\n[bold]Fresh buffers and pooled ones[/]", _metrics_table(comparisons))
    console.print(
        f"Medians of {plan.rounds} rounds each; the ratio compares neighbouring rounds. "
        "CPU time and resident size are those of the server's process; freed memory that its allocator keeps counts on "
        "in the rounds that follow.",
        style="dim",
    )
    console.print("\n[bold]Where the pooled buffers came from[/]", _hits_table(results.pool))
    console.print(
        f"{results.pool.cycles} cleanup cycles: an idle_timeout of {plan.idle_timeout:.2g} s has one come in each "
        "round. After each round the pool was emptied.",
        style="dim",
    )
    for verdict, heading in VERDICTS.items():
        chosen = [each for each in comparisons if each.verdict == verdict]
        if chosen:
            console.print(f"\n{heading}", _sentences(chosen, plan.rounds))
    if plan.size > BIG and _memory_is_cheap(comparisons):
        console.print(
            "\nFresh buffers cost little here because glibc keeps memory that is freed. Not every allocator does. "
            f"To see what they cost with one that does not:\n  {MMAP_THRESHOLD}={BIG} python -m aiopool demo"
        )
    console.print(f"\n{_correctness(results)}")


def _metrics_table(comparisons: list[Comparison]) -> Table:
    table = Table("", box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("fresh", "pooled", "pooled / fresh"):
        table.add_column(heading, justify="right")
    for each in comparisons:
        write = FORMATS[each.metric.key]
        table.add_row(
            each.metric.name,
            write(each.fresh),
            write(each.pooled),
            f"{each.ratio:{'.2f' if each.ratio >= 0.1 else '.2g'}}",
        )
    return table


def _hits_table(pool: PoolStats) -> Table:
    table = Table("processor", box=box.SIMPLE_HEAD, show_edge=False)
    for heading in (*KINDS, "made"):
        table.add_column(heading, justify="right")
    for each in pool.processors:
        table.add_row(str(each.id), *_counts(each))
    table.add_row("all", *_counts(pool))
    table.add_row("share", *(f"{getattr(pool, kind) / pool.gets:.1%}" for kind in (*KINDS, "made")))
    return table


def _counts(of: PoolStats | ProcessorStats) -> list[str]:
    return [f"{getattr(of, kind):,}" for kind in (*KINDS, "made")]


def _sentences(comparisons: list[Comparison], rounds: int) -> Table:
    # A grid, for the sake of its hanging indent.
    grid = Table.grid(padding=(0, 1))
    for each in comparisons:
        grid.add_row(" -", _sentence(each, rounds))
    return grid


def _sentence(comparison: Comparison, rounds: int) -> str:
    name, how_much = comparison.metric.name, _how_much(comparison.ratio)
    if comparison.verdict == "no clear difference":
        return f"{name}: {how_much}, better in {comparison.better} of {rounds} rounds and worse in {comparison.worse}"
    write = FORMATS[comparison.metric.key]
    turns = f"better in {comparison.better}" if comparison.verdict == "won" else f"worse in {comparison.worse}"
    return f"{name}: {how_much}, {write(comparison.pooled)} for {write(comparison.fresh)}, {turns} of {rounds} rounds"


def _how_much(ratio: float) -> str:
    if ratio < 0.1:
        return f"down to 1/{1 / ratio:,.0f}"
    if ratio > 2:
        return f"{ratio:.1f} times as much"
    if abs(ratio - 1) < 0.005:
        return "less than 1% apart"
    return f"{abs(ratio - 1):.0%} {'more' if ratio > 1 else 'less'}"


def _memory_is_cheap(comparisons: list[Comparison]) -> bool:
    """Whether pooling saved no CPU time, with an allocator that can be told to behave like others."""
    saved = any(each.verdict == "won" for each in comparisons if each.metric.key == "cpu_seconds_per_message")
    return not saved and platform.libc_ver()[0] == "glibc" and MMAP_THRESHOLD not in os.environ


def _correctness(results: Results) -> str:
    if results.mismatches:
        return f"[bold red]WRONG: {results.mismatches:,} of {results.messages:,} answers do not match their message.[/]"
    return f"All {results.messages:,} answers match their message."
