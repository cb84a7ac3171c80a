"""What many tests need: something to pool, and which build of CPython this is."""

import gc
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

PROGRAMS = Path(__file__).parent / "programs"
"""Programs that tests run in interpreters of their own."""

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
"""Whether this is a free-threaded build: its reference counts and its collector are others, with and without a GIL."""

NO_GIL = not getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether there is no GIL now: importing an extension that needs it may bring it back on a free-threaded build."""

KIB = 1024
MIB = 1024 * KIB


class Thing:
    """Something to pool that can be referenced weakly, and that can hold anything."""

    def __init__(self, *held: object) -> None:
        self.held = held


class Slotted:
    """Something to pool that cannot be referenced weakly, as a tuple."""

    __slots__ = ()


def class_of(pool: Any, n: int) -> Any:
    """The statistics of the size class of a buffer pool that serves `n` bytes."""
    return next(each for each in pool.stats().classes if each.size >= n)


def collect_deferred() -> None:
    """From free-threaded 3.14 on, a pool that is no longer referenced goes at the next garbage collection."""
    if FREE_THREADED and sys.version_info >= (3, 14):
        gc.collect()


@contextmanager
def no_other_pools(package: ModuleType) -> Iterator[None]:
    """What goes through all pools finds only those that are created in the meantime."""
    pools = package._core.registry._pools
    others = pools.copy()
    pools.clear()
    try:
        yield
    finally:
        # Not those that are gone: a later pool at the same address would take over their place in the order.
        pools.update({key: ref for key, ref in others.items() if ref() is not None})
