"""Whether memory is short, as the kernel tells it: then cleanup cycles need not wait for their time.

A limit on memory ends a process without asking its garbage collector first, and a machine that is short of memory slows
everything down. Linux tells both beforehand: how much memory a control group uses of what it may, and for how long
tasks stalled for want of memory (PSI). Cleanup asks once a second, and only while something is idle. So a process with
nothing to give back never asks, and neither does one in which idle objects are used up.

Why it asks, and is not told: the kernel would wake us (a PSI trigger is a file to poll), but only a process that may
write to the files of its control group, which in a container is the exception. The timers of idle objects are there
anyway, and a look is a few small reads, some tens of microseconds. The trade-off: a process that fills its memory
within a second is not saved.

What counts as used is the working set, as Kubernetes has it: without the file cache that the kernel can drop at once.
A container's memory is always full of that, and nothing is wrong then.
"""

import os
import sys
from collections.abc import Iterator
from math import inf
from time import monotonic
from typing import NamedTuple

EVERY = 1.0
"""Seconds from one look to the next."""

USED = 0.9
"""The share of a limit from which memory is short."""

STALLED = 0.1
"""The share of the time that tasks stalled, from which memory is short. systemd has the same by default."""

FORGET = 5.0
"""Seconds after which a count of stalls is too old to compare with."""

FIND_EVERY = 60.0
"""Seconds after which limits are looked for again: they can be set while a process runs."""


class _Kind(NamedTuple):
    """What the files of a control group are called."""

    limits: tuple[str, ...]
    used: str
    #: the line in memory.stat with the file cache that can be dropped at once
    cache: bytes


_UNIFIED = _Kind(("memory.max", "memory.high"), "memory.current", b"inactive_file")
_LEGACY = _Kind(("memory.limit_in_bytes",), "memory.usage_in_bytes", b"total_inactive_file")

NO_LIMIT = 2**60
"""Bytes. What the legacy kind has where there is no limit is a little less than 2**63."""


class _Group(NamedTuple):
    """A control group that has a limit."""

    folder: str
    kind: _Kind

    def is_nearly_full(self) -> bool:
        """Whether its working set comes near its limit."""
        enough = USED * self.limit()
        used = _number_in(f"{self.folder}/{self.kind.used}")
        return used >= enough and used - self._cache() >= enough

    def limit(self) -> float:
        """In bytes; infinity: there is none."""
        limit = min([_number_in(f"{self.folder}/{name}") for name in self.kind.limits])
        return limit if limit < NO_LIMIT else inf

    def _cache(self) -> int:
        for line in _read(f"{self.folder}/memory.stat").splitlines():
            name, _, number = line.partition(b" ")
            if name == self.kind.cache:
                return int(number)
        return 0


class MemoryPressure:
    """What the kernel tells. Safe from any thread: two looks at once cost a few reads."""

    def __init__(self, root: str = "") -> None:
        """`root` is where `/proc` and `/sys` lie."""
        self._root = root
        #: control groups with a limit, and the file about stalls
        self._groups: list[_Group] = []
        self._stalls: str | None = None
        #: when they were found, and last looked at; in seconds of time.monotonic()
        self._found = self._looked = -inf
        #: when tasks had stalled for how long, both in seconds
        self._known_stalls: tuple[float, float] | None = None

    def due(self) -> float:
        """When to look next, in seconds of time.monotonic(); infinity: the kernel tells nothing."""
        if sys.platform != "linux" or (self._found > -inf and not self._groups and self._stalls is None):
            return inf
        return self._looked + EVERY

    def begin(self) -> None:
        """Something is idle from now on: there is no need to make up for looks before that."""
        now = monotonic()
        if self._looked < now - EVERY:
            self._looked = now

    def is_felt(self) -> bool:
        """Whether memory is short. Looks, if it is time for that."""
        now = monotonic()
        if now < self.due():
            return False
        self._looked = now
        if now - self._found >= FIND_EVERY:
            self._find(now)
        try:
            stalled = self._has_stalled(now)  # first, for it must be known at the next look
            return stalled or any(group.is_nearly_full() for group in self._groups)
        except (OSError, ValueError):
            # The process came to another group, or the kernel is not one that is known here.
            self._find(now)
            return False

    def _find(self, now: float) -> None:
        """Look for the files. Where one is not as it should be, it tells nothing."""
        self._found = now
        self._groups = [group for group in self._own_groups() if _is_limited(group)]
        stalls = [f"{group.folder}/memory.pressure" for group in self._own_groups() if group.kind is _UNIFIED]
        # The process's own group first, then those around it, then the whole machine.
        readable = [file for file in (*stalls, f"{self._root}/proc/pressure/memory") if _tells_stalls(file)]
        self._stalls, self._known_stalls = (readable[0] if readable else None), None

    def _own_groups(self) -> Iterator[_Group]:
        """The control groups of this process, of both kinds, each from its own up to the topmost."""
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
                path = ""  # in a container it may be that outside
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
        group.is_nearly_full()  # all that will be read can be
        return group.limit() < inf
    except (OSError, ValueError):
        return False


def _tells_stalls(file: str) -> bool:
    try:
        _stalls_in(file)  # where PSI is switched off it is there, but cannot be read
    except (OSError, ValueError):
        return False
    return True


def _stalls_in(file: str) -> float:
    """For how many seconds some task has stalled, from `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`."""
    some = _read(file).partition(b"\n")[0]
    return int(some.rpartition(b"total=")[2]) / 1e6


def _number_in(file: str) -> float:
    text = _read(file).strip()
    return inf if text == b"max" else int(text)


def _read(file: str) -> bytes:
    """What `file` holds. `open` would take four times as long as the system calls, and be most of a look."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


memory_pressure = MemoryPressure()
