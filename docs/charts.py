"""Draw the charts of the documentation from the benchmarks' JSON: `python docs/charts.py`.

Reads `benchmarks/results/NAME.json`, as `python benchmarks/NAME.py --json FILE` writes it, and writes two SVG files for
each chart to `docs/charts/`: one for light pages and one for dark ones. The same figures give the same bytes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CHARTS = ROOT / "docs" / "charts"

KIB = 1024
MIB = 1024 * KIB

WIDTH = 5.6
"""Inches: narrow, so that the words stay readable where a phone scales the chart down."""


class Scheme(NamedTuple):
    """The colours of one kind of page."""

    text: str
    grid: str
    #: aiopool, asyncio or another base, and a third
    series: tuple[str, str, str]


SCHEMES = {
    "light": Scheme("#24292f", "#d0d7de", ("#0969da", "#6e7781", "#bc4c00")),
    "dark": Scheme("#d0d4da", "#3d444d", ("#58a6ff", "#9198a1", "#f0883e")),
}

OPERATIONS = ["get + put", "get + put, 100 in flight", "with borrow()", "get that steals", "get + put off-loop"]

INSTEAD = [
    *("queue.SimpleQueue", "queue.LifoQueue", "pondpond", "generic-pool", "anopool", "syncpool-py"),
    *("a fresh bytearray of 4 KiB", "a fresh bytearray of 64 KiB", "a fresh bytearray of 1,024 KiB"),
]

Draw = Callable[[Figure, Scheme], None]


def figures(name: str) -> Any:
    """The figures of a benchmark; with the system's own allocator, if it measured with several."""
    measured = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return measured["allocators"]["glibc"] if "allocators" in measured else measured


def size_name(size: int) -> str:
    """As the benchmarks' tables write it."""
    if size >= MIB:
        return f"{size // MIB} MiB"
    return f"{size // KIB} KiB" if size >= KIB else f"{size} B"


def streams(figure: Figure, scheme: Scheme) -> None:
    """CPU time for each frame, divided by that of asyncio's reader; a panel for each loop."""
    tcp = figures("streams")["tcp"]
    sizes = list(tcp)
    figure.set_size_inches(WIDTH, 5.6)
    for axes, loop in zip(figure.subplots(2, 1, sharex=True), ("asyncio", "uvloop"), strict=True):
        for offset, colour, reader, label in (
            (-0.2, scheme.series[0], f"{loop} aiopool", "aiopool.streams"),
            (0.2, scheme.series[2], "blocking", "a blocking socket, no event loop"),
        ):
            ratios = [_ratio(tcp[size], reader, f"{loop} StreamReader") for size in sizes]
            bars = axes.bar([place + offset for place in range(len(sizes))], ratios, 0.38, color=colour, label=label)
            axes.bar_label(bars, fmt="{:.2f}", fontsize=8, padding=1.5)
        axes.axhline(1, color=scheme.series[1], label="asyncio's StreamReader", zorder=0)
        axes.set_ylim(0, 1.9)
        axes.set_title(f"on {loop}'s loop", loc="left")
        axes.set_xticks(range(len(sizes)), [size_name(int(size)) for size in sizes])
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    figure.axes[1].set_xlabel("frame")
    figure.supylabel("CPU time for each frame (asyncio's StreamReader = 1)", fontsize=11)


def _ratio(by_reader: dict[str, list[dict[str, float]]], reader: str, base: str) -> float:
    """The median of the ratios within a round."""
    return median(each["cpu"] / other["cpu"] for each, other in zip(by_reader[reader], by_reader[base], strict=True))


def buffers(figure: Figure, scheme: Scheme) -> None:
    """The cost of a fresh bytearray divided by that of an acquire and a drop, by size."""
    figure.set_size_inches(WIDTH, 4.2)
    axes = figure.subplots()
    for name, colour, label in (("buffers", 0, "C extension"), ("buffers-python", 2, "pure Python")):
        gain = figures(name)["gain"]
        for kind, style in (("untouched", "-"), ("filled", "--")):
            sizes = list(gain[kind])
            medians = [gain[kind][size]["median"] for size in sizes]
            axes.plot(sizes, medians, style, color=scheme.series[colour], marker="o", label=f"{label}, {kind}")
    axes.axhline(1, color=scheme.series[1])
    axes.set_yscale("log")
    _plain_numbers(axes, "y")
    axes.set_xlabel("size of the buffer")
    axes.set_ylabel("fresh bytearray / acquire and drop\n(above 1 pooling wins)")
    axes.tick_params(axis="x", labelsize=8)
    axes.legend(frameon=False)


def get_put(figure: Figure, scheme: Scheme) -> None:
    """The cost of a get and a put, divided by that of a list.pop and a list.append, beside the alternatives."""
    measured = figures("get_put")
    native, python = measured["native"], measured["python"]
    base = "list.pop + append"
    rows = [
        *((f"{path}", native[path], native[base], 0) for path in OPERATIONS),
        *((f"{path}, pure Python", python[path], python[base], 2) for path in OPERATIONS[:3]),
        *((path, native[path], native[base], 1) for path in INSTEAD),
    ]
    ratios = [row["seconds"]["median"] / one["seconds"]["median"] for _, row, one, _ in rows]
    figure.set_size_inches(WIDTH, 5.6)
    axes = figure.subplots()
    bars = axes.barh([row[0] for row in rows], ratios, color=[scheme.series[row[3]] for row in rows])
    axes.bar_label(bars, fmt=lambda ratio: f"{ratio:.3g}", padding=2, fontsize=9)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(0.5, 700)
    _plain_numbers(axes, "x")
    axes.set_xlabel("a list.pop and a list.append = 1")


def hit_rate(figure: Figure, scheme: Scheme) -> None:
    """The gain from the victim: the hit rate by how often cleanup cycles come."""
    rates = figures("hit_rate")["hit_rate"]
    figure.set_size_inches(WIDTH, 3.4)
    axes = figure.subplots()
    for offset, colour, kind in ((-0.2, scheme.series[0], "with victim"), (0.2, scheme.series[1], "without")):
        shares = [100 * each[kind]["hit_rate"] for each in rates.values()]
        bars = axes.barh([place + offset for place in range(len(shares))], shares, 0.38, color=colour, label=kind)
        axes.bar_label(bars, fmt="{:.1f}%", padding=2, fontsize=9)
    axes.set_yticks(range(len(rates)), list(rates))
    axes.invert_yaxis()
    axes.set_xlim(0, 125)
    axes.set_xlabel("gets that find an object, in per cent")
    axes.set_ylabel("a cleanup cycle")
    axes.legend(loc="lower right", frameon=False)


def _plain_numbers(axes: Axes, axis: str) -> None:
    """A logarithmic axis with 0.1, 1 and 1,000 instead of powers of ten."""
    ruler = axes.yaxis if axis == "y" else axes.xaxis
    ruler.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    ruler.set_minor_formatter(NullFormatter())


DRAWN: dict[str, Draw] = {"streams": streams, "buffers": buffers, "get-put": get_put, "hit-rate": hit_rate}


def draw(name: str, scheme_name: str) -> None:
    """Write one chart for one kind of pages."""
    scheme = SCHEMES[scheme_name]
    style: Any = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), scheme.text),
        "axes.edgecolor": scheme.grid,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.family": "DejaVu Sans",
        "font.size": 10.5,
        "svg.fonttype": "path",
        "svg.hashsalt": name,  # the same figures give the same file
    }
    with mpl.rc_context(style):
        figure = Figure(layout="constrained")
        DRAWN[name](figure, scheme)
        CHARTS.mkdir(exist_ok=True)
        figure.savefig(CHARTS / f"{name}-{scheme_name}.svg", transparent=True, metadata={"Date": None})


def main() -> None:
    """Draw all charts."""
    for name in DRAWN:
        for scheme in SCHEMES:
            draw(name, scheme)


if __name__ == "__main__":
    main()
