"""The garbage collector as a clock: it ticks when the program makes garbage, which is when memory matters.

But it can stand still for hours, be switched off, or be removed by another's `gc.callbacks.clear()`. So it is one of
several occasions for a cleanup cycle, and is put back whenever a pool makes a shard.
"""

import atexit
import gc
import sysconfig
from collections.abc import Callable


class GCClock:
    """Decides from what `gc.callbacks` report when the whole heap has been gone through, on every build.

    - Free-threaded builds know one generation: each collection is a full one, whatever its number.
    - Generational builds count a full collection as generation 2.
    - Incremental builds (3.14.0 to 3.14.4) only ever report generation 1, once an increment, and never 0 in between.
      A hundred increments count as one full collection: as many young collections lie between two full ones
      by the thresholds of the generational collector (10 times 10).

    `gc.collect()` reports generation 2 everywhere.
    """

    INCREMENTS = 100

    def __init__(self, *, every_collection_is_full: bool) -> None:
        self._every = every_collection_is_full
        self._increments = 0

    def is_full(self, generation: int) -> bool:
        """Whether the collection that reports `generation` ends a pass over the whole heap."""
        if self._every or generation == 2:
            self._increments = 0
            return True
        if generation == 0:
            self._increments = 0
            return False
        self._increments += 1
        return self._increments % self.INCREMENTS == 0


_clock = GCClock(every_collection_is_full=bool(sysconfig.get_config_var("Py_GIL_DISABLED")))

# Called when a collection begins, when one ends, when a full one ends, and when one ends that was not full.
on_start: list[Callable[[], object]] = []
on_stop: list[Callable[[], object]] = []
on_full: list[Callable[[], object]] = []
on_partial: list[Callable[[], object]] = []


def _on_gc(phase: str, info: dict[str, int]) -> None:
    called = on_start if phase == "start" else on_stop
    for function in called:
        function()
    if phase == "stop":
        ended = on_full if _clock.is_full(info["generation"]) else on_partial
        for function in ended:
            function()


def listen() -> None:
    """Hear of collections from now on."""
    if _on_gc not in gc.callbacks:
        gc.callbacks.append(_on_gc)


def _stop() -> None:
    """At exit: a collection while the interpreter takes its modules apart must not find half of this one."""
    if _on_gc in gc.callbacks:
        gc.callbacks.remove(_on_gc)


atexit.register(_stop)
listen()
