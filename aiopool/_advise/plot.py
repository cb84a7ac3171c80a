"""A chart of the times as an SVG file: a pair of bars for each number in flight and each allocator.

It is drawn with the standard library, because a plotting library would be larger than all other dependencies of this
command. Each pair has its own scale, because one time may be a thousand times as long as another.
"""

import textwrap
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from .report import named
from .results import Case, Results, seconds_text, verdict

WIDTH, MARGIN, BAR, GAP, LINE = 720, 24, 22, 6, 20
LABELS = 70
"""The width of the labels to the left of the bars."""

TIMES = 90
"""The width of the times to the right of the bars."""

COLORS = {"fresh": "#9a9a9a", "pooled": "#2b7bb9"}


def write_plot(results: Results, file: Path) -> None:
    """Write the chart to `file`.

    :raises OSError: the file cannot be written.
    """
    root = Element("svg", xmlns="http://www.w3.org/2000/svg", width=str(WIDTH), role="img")
    root.set("font-family", "sans-serif")
    SubElement(root, "rect", width="100%", height="100%", fill="white")
    y = _text(root, MARGIN + 8, results.create, size=16, weight="bold")
    for line in textwrap.wrap(verdict(results), 100):
        y = _text(root, y, line)
    for allocator, measured in named(results):
        for case in (measured.one, measured.many):
            y = _pair(root, y + LINE, f"{case.in_flight} in flight, allocator: {allocator}", case)
    height = y + MARGIN
    root.set("height", str(height))
    root.set("viewBox", f"0 0 {WIDTH} {height}")
    indent(root)
    ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)


def _text(root: Element, y: int, text: str, *, size: int = 13, weight: str = "normal", x: int = MARGIN) -> int:
    """Write `text`, and return the position of the next line."""
    written = SubElement(root, "text", x=str(x), y=str(y))
    written.set("font-size", str(size))
    written.set("font-weight", weight)
    written.text = text
    return y + LINE


def _pair(root: Element, y: int, title: str, case: Case) -> int:
    y = _text(root, y, f"{title}: fresh ÷ pooled = {case.ratio:.2f}", weight="bold")
    longest = max(case.fresh, case.pooled)
    for name, seconds in (("fresh", case.fresh), ("pooled", case.pooled)):
        length = (WIDTH - 2 * MARGIN - LABELS - TIMES) * seconds / longest
        top = y - BAR // 2
        _text(root, y + 5, name)
        bar = SubElement(root, "rect", x=str(MARGIN + LABELS), y=str(top), width=f"{length:.1f}", height=str(BAR))
        bar.set("fill", COLORS[name])
        _text(root, y + 5, seconds_text(seconds), x=round(MARGIN + LABELS + length + GAP))
        y += BAR + GAP
    return y
