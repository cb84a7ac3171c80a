"""Helpers for many tests: an object to pool, and facts about this build of CPython."""

import gc
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

PROGRAMS = Path(__file__).parent / "programs"
"""Programs that tests run in separate interpreters."""

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
"""Whether this is a free-threaded build, whose reference counts and garbage collector differ even if the GIL is on."""

NO_GIL = not getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether the GIL is off now. On a free-threaded build, importing an extension that needs the GIL may turn it on."""

FORKS_AMID_THREADS = "ignore:This process (pid=:DeprecationWarning"
"""Option -W for a program that forks amid threads: CPython warns of that from 3.12 on. From 3.15 on, `os.fork` raises
where a warning is an error."""

KIB = 1024
MIB = 1024 * KIB


class Thing:
    """An object to pool that supports weak references, and that can hold anything."""

    def __init__(self, *held: object) -> None:
        self.held = held


class Slotted:
    """An object to pool that does not support weak references, like a tuple."""

    __slots__ = ()


def class_of(pool: Any, n: int) -> Any:
    """The statistics of the size class of a buffer pool that serves `n` bytes."""
    return next(each for each in pool.stats().classes if each.size >= n)


def collect_deferred() -> None:
    """On free-threaded builds from 3.14 on, an unreferenced pool is freed by the next garbage collection."""
    if FREE_THREADED and sys.version_info >= (3, 14):
        gc.collect()


@contextmanager
def no_other_pools(package: ModuleType) -> Iterator[None]:
    """Hide all pools that exist already during a block, from cleanup cycles for example."""
    pools = package._core.registry._pools
    others = pools.copy()
    pools.clear()
    try:
        yield
    finally:
        # Not those that were freed: a later pool at the same address would take their place in the order.
        pools.update({key: ref for key, ref in others.items() if ref() is not None})
