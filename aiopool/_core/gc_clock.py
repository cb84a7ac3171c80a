"""Full garbage collections start cleanup cycles: they run when a program creates garbage, which is when memory matters.

But the collector may not run for hours, may be disabled, and other code may call `gc.callbacks.clear()`. So collections
are only one of several things that start a cleanup cycle, and the callback is added again whenever a pool creates a
shard.
"""

import atexit
import gc
import sysconfig
from collections.abc import Callable


class GCClock:
    """Decides, from what `gc.callbacks` report, when the whole heap has been collected, on every build.

    - Free-threaded builds have one generation: each collection is full, whatever generation it reports.
    - Generational builds report a full collection as generation 2.
    - Incremental builds (3.14.0 to 3.14.4) report generation 1 for each increment, and never 0. A hundred increments
      count as one full collection, because the generational collector runs a hundred young collections (10 times 10,
      by its thresholds) for each full one.

    `gc.collect()` reports generation 2 on every build.
    """

    INCREMENTS = 100

    def __init__(self, *, every_collection_is_full: bool) -> None:
        self._every = every_collection_is_full
        self._increments = 0

    def is_full(self, generation: int) -> bool:
        """Whether the collection that reports `generation` completes a pass over the whole heap."""
        if self._every or generation == 2:
            self._increments = 0
            return True
        if generation == 0:
            self._increments = 0
            return False
        self._increments += 1
        return self._increments % self.INCREMENTS == 0


_clock = GCClock(every_collection_is_full=bool(sysconfig.get_config_var("Py_GIL_DISABLED")))

# Called when a collection begins, when one ends, when a full one ends, and when one that was not full ends.
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
    """Receive collection events from now on."""
    if _on_gc not in gc.callbacks:
        gc.callbacks.append(_on_gc)


def _stop() -> None:
    """At exit: a collection during interpreter shutdown must not run this half-cleared module."""
    if _on_gc in gc.callbacks:
        gc.callbacks.remove(_on_gc)


atexit.register(_stop)
listen()
