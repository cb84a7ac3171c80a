"""Tables of a snapshot: one each for pools, buffer pools and processors, the busiest first."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..stats import BufferStats, PoolStats
from .snapshot import PoolRow, Snapshot

KIB = 1024


class Rates:
    """Changes per second since an earlier snapshot, if there is one."""

    def __init__(self, now: Snapshot, before: Snapshot | None) -> None:
        self._seconds = 0.0 if before is None else now.time - before.time
        self._before: Mapping[tuple[str, int], Any] = {} if before is None else _by_id(before)

    def number(self, kind: str, row: Any, name: str) -> float:
        """The change of the figure `name`, per second; 0 if it is not known."""
        before = self._before.get((kind, row.id))
        if before is None or self._seconds <= 0:
            return 0.0
        # The difference may be negative, because another pool may have the same id by now.
        happened: float = getattr(row, name) - getattr(before, name)
        return max(0.0, happened / self._seconds)

    def text(self, kind: str, row: Any, name: str) -> str:
        """The same as text for a table cell."""
        return f"{self.number(kind, row, name):,.0f}" if self._before else "-"


def tables(now: Snapshot, before: Snapshot | None) -> RenderableType:
    """All tables of `now`, with rates since `before`."""
    rates = Rates(now, before)
    pools = sorted(now.pools, key=lambda row: (-rates.number("pool", row, "gets"), -row.gets, row.stats.name or ""))
    head = Text(
        f"process {now.pid}, aiopool {now.implementation}, {len(now.pools)} pools; "
        f"a look took {now.seconds * 1e3:.2f} ms of its main thread",
        style="dim",
    )
    parts: list[RenderableType] = [head]
    if plain := [(row, row.stats) for row in pools if isinstance(row.stats, PoolStats)]:
        parts.append(_pools(plain, rates))
    if buffers := [(row, row.stats) for row in pools if isinstance(row.stats, BufferStats)]:
        parts.append(_buffers(buffers, rates))
    if now.processors:
        parts.append(_processors(now, rates))
    return Group(*parts)


def _by_id(snapshot: Snapshot) -> dict[tuple[str, int], Any]:
    rows: Iterable[tuple[str, Any]] = [
        *(("pool", row) for row in snapshot.pools),
        *(("processor", row) for row in snapshot.processors),
    ]
    return {(kind, row.id): row for kind, row in rows}


def _table(first: str, second: str, *others: str) -> Table:
    table = Table(first, second, box=box.SIMPLE_HEAD, show_edge=False)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _name(row: PoolRow) -> str:
    return f"[dim]{row.id:#x}[/]" if row.stats.name is None else escape(row.stats.name)


def _pools(rows: list[tuple[PoolRow, PoolStats]], rates: Rates) -> Table:
    table = _table(
        "pool", "kind", "gets", "gets/s", "hits", "created", "created/s", "rejected", "idle", "max_idle", "cycles"
    )
    for row, stats in rows:
        table.add_row(
            _name(row),
            row.kind,
            f"{row.gets:,}",
            rates.text("pool", row, "gets"),
            f"{stats.hit_rate:.1%}",
            f"{row.created:,}",
            rates.text("pool", row, "created"),
            f"{stats.rejected:,}",
            f"{stats.idle:,}",
            "-" if stats.max_idle is None else f"{stats.max_idle:,}",
            f"{stats.cycles:,}",
        )
    return table


def _buffers(rows: list[tuple[PoolRow, BufferStats]], rates: Rates) -> Table:
    table = _table(
        "buffers", "size", "gets", "gets/s", "hits", "created", "created/s", "in use", "peak", "idle", "cycles"
    )
    for row, stats in rows:
        table.add_row(
            _name(row),
            "all",
            f"{row.gets:,}",
            rates.text("pool", row, "gets"),
            f"{stats.hit_rate:.1%}",
            f"{row.created:,}",
            rates.text("pool", row, "created"),
            _bytes(stats.bytes_in_use),
            _bytes(stats.peak_in_use),
            f"{_bytes(stats.bytes_idle)} of {_bytes(stats.max_idle_bytes)}",
            f"{stats.cycles:,}",
        )
        for each in stats.classes:
            created = each.blocks.created
            sizes = (_bytes(each.bytes_in_use), "", _bytes(each.bytes_idle))
            hits = f"{1 - created / each.served:.1%}" if each.served else ""
            table.add_row("", _bytes(each.size), f"{each.served:,}", "", hits, f"{created:,}", "", *sizes)
    return table


def _processors(now: Snapshot, rates: Rates) -> Table:
    table = _table("processor", "loop", "thread", "gets", "gets/s")
    for row in now.processors:
        loop = "off-loop" if row.id == 0 else row.loop or "none"
        thread = "" if row.thread_id is None else str(row.thread_id)
        table.add_row(str(row.id), loop, thread, f"{row.gets:,}", rates.text("processor", row, "gets"))
    return table


def _bytes(count: int) -> str:
    for unit, size in (("GiB", KIB**3), ("MiB", KIB**2), ("KiB", KIB)):
        if count >= size:
            return f"{count / size:,.1f} {unit}".replace(".0 ", " ")
    return f"{count} B"
