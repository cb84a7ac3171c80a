"""Memory pressure, as the kernel reports it. When memory is short, cleanup cycles run early.

A memory limit kills a process without running its garbage collector first, and a machine that is short of memory slows
everything down. Linux reports both in advance: how much of its limit a control group uses, and for how long tasks
stalled waiting for memory (PSI). Cleanup checks once a second, and only while objects are idle, so a process with
nothing to give back never checks.

It polls rather than waiting for a notification. The kernel could wake us (a PSI trigger is a file to poll), but only if
the process may write to the files of its control group, which is rare in a container. The timers of idle objects exist
anyway, and a check takes a few small reads, some tens of microseconds. The trade-off: polling does not help a process
that fills its memory within a second.

Usage is measured as the working set, as in Kubernetes: without the file cache that the kernel can drop at once. That
cache normally fills the rest of a container's memory, which is harmless.
"""

import os
import sys
from collections.abc import Iterator
from math import inf
from time import monotonic
from typing import NamedTuple

EVERY = 1.0
"""Seconds between two checks."""

USED = 0.9
"""Memory is short when this fraction of a limit is used."""

STALLED = 0.1
"""Memory is short when tasks stalled for this fraction of the time. systemd has the same default."""

FORGET = 5.0
"""Seconds after which an earlier total of stalls is too old to compare with."""

FIND_EVERY = 60.0
"""Seconds after which limits are looked up again, because they can be set while a process runs."""


class _Kind(NamedTuple):
    """The names of a control group's files."""

    limits: tuple[str, ...]
    used: str
    #: the line in memory.stat that gives the file cache that can be dropped at once
    cache: bytes


_UNIFIED = _Kind(("memory.max", "memory.high"), "memory.current", b"inactive_file")
_LEGACY = _Kind(("memory.limit_in_bytes",), "memory.usage_in_bytes", b"total_inactive_file")

NO_LIMIT = 2**60
"""In bytes. The legacy kind reports a little less than 2**63 where there is no limit."""


class _Group(NamedTuple):
    """A control group that has a limit."""

    folder: str
    kind: _Kind

    def is_nearly_full(self) -> bool:
        """Whether its working set is near its limit."""
        enough = USED * self.limit()
        used = _number_in(f"{self.folder}/{self.kind.used}")
        return used >= enough and used - self._cache() >= enough

    def limit(self) -> float:
        """In bytes; infinity if there is none."""
        limit = min([_number_in(f"{self.folder}/{name}") for name in self.kind.limits])
        return limit if limit < NO_LIMIT else inf

    def _cache(self) -> int:
        for line in _read(f"{self.folder}/memory.stat").splitlines():
            name, _, number = line.partition(b" ")
            if name == self.kind.cache:
                return int(number)
        return 0


class MemoryPressure:
    """Checks the kernel's reports. Thread-safe, because two checks at once only cost a few more reads."""

    def __init__(self, root: str = "") -> None:
        """`root` is the directory that contains `/proc` and `/sys`."""
        self._root = root
        #: control groups with a limit, and the file that reports stalls
        self._groups: list[_Group] = []
        self._stalls: str | None = None
        #: when these were found, and last checked, in seconds of time.monotonic()
        self._found = self._looked = -inf
        #: the time of the last check and the total of stalls at that time, both in seconds
        self._known_stalls: tuple[float, float] | None = None

    def due(self) -> float:
        """When to check next, in seconds of time.monotonic(); infinity if the kernel reports nothing."""
        if sys.platform != "linux" or (self._found > -inf and not self._groups and self._stalls is None):
            return inf
        return self._looked + EVERY

    def begin(self) -> None:
        """Start checking, because an object became idle. Checks missed before that need not be made up for."""
        now = monotonic()
        if self._looked < now - EVERY:
            self._looked = now

    def is_felt(self) -> bool:
        """Whether memory is short. `False` if the next check is not yet due."""
        now = monotonic()
        if now < self.due():
            return False
        self._looked = now
        if now - self._found >= FIND_EVERY:
            self._find(now)
        try:
            stalled = self._has_stalled(now)  # first, because the next check compares with this total
            return stalled or any(group.is_nearly_full() for group in self._groups)
        except (OSError, ValueError):
            # The process moved to another group, or this kernel has other files.
            self._find(now)
            return False

    def _find(self, now: float) -> None:
        """Find the files. One that cannot be read as expected is ignored."""
        self._found = now
        self._groups = [group for group in self._own_groups() if _is_limited(group)]
        stalls = [f"{group.folder}/memory.pressure" for group in self._own_groups() if group.kind is _UNIFIED]
        # The process's own group first, then those around it, then the whole machine.
        readable = [file for file in (*stalls, f"{self._root}/proc/pressure/memory") if _tells_stalls(file)]
        self._stalls, self._known_stalls = (readable[0] if readable else None), None

    def _own_groups(self) -> Iterator[_Group]:
        """The control groups of this process, of both kinds, each from the innermost to the root."""
        try:
            lines = _read(f"{self._root}/proc/self/cgroup").decode().splitlines()
        except (OSError, ValueError):
            return
        for line in lines:
            controllers, _, path = line.partition(":")[2].partition(":")
            if not path or controllers not in ("", "memory"):
                continue
            kind = _LEGACY if controllers else _UNIFIED
            mount = f"{self._root}/sys/fs/cgroup" + ("/memory" if controllers else "")
            path = path.rstrip("/")
            if not os.path.isdir(mount + path):
                path = ""  # in a container this may be the path outside
            while path:
                yield _Group(mount + path, kind)
                path = path.rpartition("/")[0]
            yield _Group(mount, kind)

    def _has_stalled(self, now: float) -> bool:
        if self._stalls is None:
            return False
        stalled = _stalls_in(self._stalls)
        known, self._known_stalls = self._known_stalls, (now, stalled)
        if known is None or now - known[0] > FORGET:
            return False
        return stalled - known[1] >= STALLED * (now - known[0])


def _is_limited(group: _Group) -> bool:
    try:
        group.is_nearly_full()  # raises if a file that it needs cannot be read
        return group.limit() < inf
    except (OSError, ValueError):
        return False


def _tells_stalls(file: str) -> bool:
    try:
        _stalls_in(file)  # if PSI is disabled, the file exists but cannot be read
    except (OSError, ValueError):
        return False
    return True


def _stalls_in(file: str) -> float:
    """Seconds that some task has stalled, from a line such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`."""
    some = _read(file).partition(b"\n")[0]
    return int(some.rpartition(b"total=")[2]) / 1e6


def _number_in(file: str) -> float:
    text = _read(file).strip()
    return inf if text == b"max" else int(text)


def _read(file: str) -> bytes:
    """The contents of `file`. `open` would take four times as long as the system calls, and most of a check."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


memory_pressure = MemoryPressure()
