"""The gain from the victim: how many gets find an object, with 100 objects in flight and regular cleanup cycles.

Each round gets 100 objects and puts them back; a cleanup cycle runs at regular intervals. A pool without a victim would
drop all its idle objects at each cycle and start again from nothing, as Go's did up to 1.12. Go 1.13 added the victim:
a get still finds the objects that a cycle set aside, until the next cycle.

The pool without a victim is the same pool with two cycles wherever the other has one: the first makes the idle objects
the victim, the second drops it, and no get runs in between.

The program counts and takes no times, so it gives the same figures on each run. What could make them misleading: all
100 objects come back before each cycle, and as many are needed again after it. An object that was idle through two
cycles is dropped, victim or not; the last row shows that limit.
"""

import asyncio
import gc
from typing import NamedTuple

from _report import arguments, headline, plain_table, show, write_json

import aiopool
from aiopool import Pool

IN_FLIGHT = 100


class Rhythm(NamedTuple):
    """How rounds and cleanup cycles alternate."""

    rounds: int
    cycles: int

    def __str__(self) -> str:
        if self.cycles > 1:
            return f"{self.cycles} after every round"
        return "after every round" if self.rounds == 1 else f"after every {self.rounds} rounds"


RHYTHMS = [Rhythm(100, 1), Rhythm(10, 1), Rhythm(5, 1), Rhythm(2, 1), Rhythm(1, 1), Rhythm(1, 2)]


class Outcome(NamedTuple):
    """The hit rate, and how many objects had to be created."""

    hit_rate: float
    created: int


async def play(rhythm: Rhythm, rounds: int, *, victim: bool) -> Outcome:
    pool = Pool(object)
    for number in range(1, rounds + 1):
        for obj in [pool.get() for _ in range(IN_FLIGHT)]:
            pool.put(obj)
        if number % rhythm.rounds == 0:
            for _ in range(rhythm.cycles if victim else 2 * rhythm.cycles):
                aiopool.cleanup()
        # Let the loop free the retired objects.
        await asyncio.sleep(0)
    stats = pool.stats()
    return Outcome(stats.hit_rate, stats.created)


async def play_all(rounds: int) -> dict[Rhythm, tuple[Outcome, Outcome]]:
    return {
        rhythm: (await play(rhythm, rounds, victim=True), await play(rhythm, rounds, victim=False))
        for rhythm in RHYTHMS
    }


def main() -> None:
    options = arguments(__doc__, rounds=1000, quick=100)
    # A garbage collection would be another cleanup cycle.
    gc.disable()
    outcomes = asyncio.run(play_all(options.rounds))
    table = plain_table(
        f"{headline()}; {options.rounds:,} rounds of {IN_FLIGHT} gets and {IN_FLIGHT} puts",
        "cleanup cycle",
        "hits, with victim",
        "without",
        "objects created, with victim",
        "without",
    )
    for rhythm, (with_victim, without) in outcomes.items():
        table.add_row(
            str(rhythm),
            f"{with_victim.hit_rate:.1%}",
            f"{without.hit_rate:.1%}",
            f"{with_victim.created:,}",
            f"{without.created:,}",
        )
    show(table, "The first round finds an empty pool: its misses are in all figures.")
    write_json(
        options.json,
        {
            "rounds": options.rounds,
            "hit_rate": {
                str(rhythm): {"with victim": with_victim._asdict(), "without": without._asdict()}
                for rhythm, (with_victim, without) in outcomes.items()
            },
        },
    )


if __name__ == "__main__":
    main()
