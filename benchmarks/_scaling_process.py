"""One process of `scaling.py`: on each request, lets one, two and four loops do each operation."""

import random
from collections.abc import Sequence
from statistics import fmean

from _loop_threads import LoopThread, cores
from _report import environment
from _scaling_case import Case, Measured
from _scaling_frames import RECEIVING
from _scaling_operations import OTHERS, OWN, SHARED
from _stealing import Stealing
from _timing import no_collections
from _workers import Message, requests

from aiopool import current_processor


async def pin() -> None:
    """Have the loop's thread take the next processor."""
    current_processor()


def start_loops() -> tuple[list[LoopThread], list[LoopThread]]:
    """Four loops on two cores, and two donors: loops that only put objects for others to steal.

    A steal begins at the next processor. So the donors come between the loops that steal: the first of these finds the
    first donor first, and the second finds the second donor.
    """
    first, second = cores()
    threads = [LoopThread(core) for core in (first, None, second, None, first, second)]
    for thread in threads:
        thread.run(pin())
    a, donor_a, b, donor_b, c, d = threads
    return [a, b, c, d], [donor_a, donor_b]


def measure(case: Case, loops: list[LoopThread]) -> dict[str, Measured]:
    """Measure one, two and four loops, by their number. A single loop works on each core in turn."""
    one = case.measure([loops[0]])
    two = case.measure(loops[:2])
    other = case.measure([loops[1]])
    either = Measured(*map(fmean, zip(one, other, strict=True)))
    return {"1": either, "2": two, "4": case.measure(loops)}


def main() -> None:
    loops, donors = start_loops()
    sections: dict[str, Sequence[Case]] = {
        "a pool that all loops share": [
            *SHARED,
            Stealing("get that steals, each from another loop", donors),
            Stealing("get that steals, all from one loop", donors[:1]),
        ],
        "a pool for each loop": OWN,
        "frames received over streams": RECEIVING,
        "instead of a pool": OTHERS,
    }
    cases = [case for section in sections.values() for case in section]
    with no_collections():
        for case in cases:
            case.calibrate(loops)
        names = {section: [case.name for case in each] for section, each in sections.items()}
        for reply in requests({"environment": environment(), "names": names}):
            rates: Message = {section: {} for section in sections}
            for section, each in random.sample(list(sections.items()), len(sections)):
                for case in random.sample(each, len(each)):
                    rates[section][case.name] = measure(case, loops)
            reply(rates)
    for loop in [*loops, *donors]:
        loop.stop()


if __name__ == "__main__":
    main()
