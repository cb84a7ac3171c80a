"""One process of `debug.py`: prints how many list pairs each operation takes, as JSON."""

import asyncio
import json
import sys
import types
from typing import Any

from _timing import IN_FLIGHT, Candidate, measure

KINDS = ["without a debug mode", "never on", "off again", "on"]

SAMPLES = 9
"""Of each operation; what counts is the median."""


def prepare(kind: str) -> None:
    """Be a process of that kind. Nothing has imported aiopool yet."""
    if kind == "without a debug mode":
        nothing: Any = types.ModuleType("aiopool._debug")
        nothing.turn_on_when_asked = lambda: None
        sys.modules["aiopool._debug"] = nothing
        return
    from aiopool import _debug

    if kind != "never on":
        _debug.turn_on()
    if kind == "off again":
        _debug.turn_off()
    if _debug.is_on() != (kind == "on"):
        sys.exit("AIOPOOL_DEBUG is set: the debug mode is on")


OPERATIONS = ["get + put", f"{IN_FLIGHT} in flight", "borrow", "AsyncPool"]


def main(kind: str) -> None:
    prepare(kind)
    import _operations as do  # which imports aiopool

    base = Candidate("", do.list_pair)
    operations = map(Candidate, OPERATIONS, [do.get_put, do.many_in_flight, do.borrow, do.async_get_put])
    results = asyncio.run(measure([base, *operations], SAMPLES))
    print(json.dumps({name: results.ratio(name, base.name).median for name in OPERATIONS}))


if __name__ == "__main__":
    main(sys.argv[1])
