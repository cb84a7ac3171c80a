"""How fast a full pool follows the traffic: how many acquires find a block after the sizes have changed.

A phase is many rounds of the same requests. Each round acquires all of its buffers and drops them. The pool keeps 64
MiB, and each phase alone nearly fills that. So if idle blocks never made room, the second phase would create a block
for each acquire, until two cleanup cycles have passed.

The program counts and takes no times, so it gives the same figures on each run. What could make them misleading: all
requests of a phase have one size, while with many sizes at a time each has a share of the bound; and no garbage
collection runs, which would be a cleanup cycle.
"""

import asyncio
from typing import NamedTuple

from _report import KIB, MIB, arguments, headline, plain_table, show, write_json
from _timing import no_collections

from aiopool import BufferPool


class Phase(NamedTuple):
    """Requests of one size."""

    name: str
    size: int
    in_flight: int


PHASES = [
    Phase("morning: 1 KiB", KIB, 65_000),
    Phase("noon: 1 MiB", MIB, 60),
    Phase("afternoon: 64 KiB", 64 * KIB, 1000),
    Phase("evening: 16 MiB", 16 * MIB, 4),
]


async def play(rounds: int) -> dict[str, list[float]]:
    """The share of acquires that found a block, by phase and round."""
    pool = BufferPool(max_idle_bytes=64 * MIB, idle_timeout=None)
    hit_rates: dict[str, list[float]] = {}
    for phase in PHASES:
        for _ in range(rounds):
            created = pool.stats().created
            [pool.acquire(phase.size) for _ in range(phase.in_flight)].clear()
            hits = 1 - (pool.stats().created - created) / phase.in_flight
            hit_rates.setdefault(phase.name, []).append(hits)
    assert pool.stats().peak_idle <= pool.stats().max_idle_bytes
    return hit_rates


def main() -> None:
    options = arguments(__doc__, rounds=5, quick=3)
    with no_collections():
        hit_rates = asyncio.run(play(options.rounds))
    table = plain_table(
        f"{headline()}\nacquires that found a block, by round",
        "",
        *(str(number + 1) for number in range(options.rounds)),
    )
    for name, rates in hit_rates.items():
        table.add_row(name, *(f"{rate:.1%}" for rate in rates))
    show(table)
    write_json(options.json, {"rounds": options.rounds, "hit_rates": hit_rates})


if __name__ == "__main__":
    main()
