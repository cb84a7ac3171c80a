"""The display during the measurement: a bar on a terminal; a few lines without control codes in a pipe or a log."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .results import Round

LOG_LINES = 5
"""About how many lines are printed to a log."""


class RoundsShown:
    """Shows progress during a `with` block. Call it with each pair of rounds."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console = console
        self._rounds = rounds
        self._done = 0
        # Without a refresh thread, so that drawing costs the server almost nothing, and the same for both kinds.
        self._bar = Progress(
            TextColumn("round {task.completed} of {task.total}"),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=rounds)

    def __enter__(self) -> "RoundsShown":
        self._bar.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, asyncio: Round, aiopool: Round) -> None:
        self._done += 1
        rates = f"asyncio {_rate(asyncio)}, aiopool {_rate(aiopool)} messages/s"
        self._bar.update(self._task, advance=1, description=rates, refresh=True)
        if not self._console.is_terminal and self._is_a_fifth():
            self._console.print(f"round {self._done} of {self._rounds}: {rates}")

    def _is_a_fifth(self) -> bool:
        """Whether this round completes another fifth of all rounds."""
        return self._done * LOG_LINES // self._rounds > (self._done - 1) * LOG_LINES // self._rounds


def _rate(round: Round) -> str:
    return f"{round.messages / round.seconds:,.0f}"
