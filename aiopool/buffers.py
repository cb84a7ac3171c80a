"""`BufferPool`: memoryviews whose storage comes back by itself, and not before nobody can see it any more.

Reusing buffers by hand corrupts data in asyncio: `transport.write(view)` returns while the view is still to be sent, a
cancelled task's traceback still holds it, a codec made an array of it. What is put too early is sent, read or parsed
with somebody else's bytes in it, and nothing fails. Here nobody puts. See `_storage` for how CPython itself tells when
a buffer is free.

Under it lies the pool's algorithm, once for each size class: storage comes from the running thread's own shard, else is
stolen, else comes from the victim, else is made. Sizes double from class to class. That wastes up to half of each
storage, though not of the memory: pages that nobody touches cost nothing. Finer classes would waste less and hit less.
"""

import atexit
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from . import _collector
from ._checks import digits, natural, refuse_copy
from ._implementation import native
from ._pool import Pool
from ._storage import EXACT, Ledger, SizeClass, Storage
from .stats import BufferStats, OversizeStats, SizeClassStats

KIB = 1024
MIB = 1024 * KIB


class Shelf(Pool[Storage]):
    """The idle storage of one size class. A pool as any other, but for the collector, who knows the whole."""

    # Nobody gets or puts storage by hand, so there is nothing to watch.
    _WATCHED = False

    __slots__ = ("size", "size_class")

    def __init__(self, size: int, size_class: SizeClass, idle_timeout: float | None) -> None:
        super().__init__(partial(Storage, size_class, size), idle_timeout=idle_timeout)
        self.size = size
        self.size_class = size_class
        size_class.shelf = weakref.ref(self)

    def _register(self) -> None:
        """The buffer pool is registered, and rotates all its shelves."""


class Counts(NamedTuple):
    """What only ever grows in a size class."""

    served: int
    asked: int

    @classmethod
    def of(cls, size_class: SizeClass) -> "Counts":
        return cls(size_class.served, size_class.asked)

    def less(self, other: "Counts") -> "Counts":
        return Counts(self.served - other.served, self.asked - other.asked)


if TYPE_CHECKING or native is None:

    class Base:
        """What acquire looks at. The compiled twin has one of its own, which it can look at without a call."""

        __slots__ = ("_shelves",)

        _shelves: tuple[Shelf, ...]

else:
    Base = native.Buffers


class BufferPool(Base):
    """Buffers of any size, shared by every event-loop thread of the process.

    `acquire(n)` gives a plain memoryview of `n` writable bytes. There is nothing to give back: its storage is used
    again when the last view, slice, cast or array over it has gone, in whichever thread, and never before.

    Storage comes in size classes: `min_size` bytes, twice that, and so on to `max_size`. What is bigger is served, but
    not kept.

    `max_idle_bytes` bounds what lies idle, over all size classes and all loops; what comes back beyond it is freed.

    `wipe` zeroes what was lent as soon as nobody can see it any more. Otherwise a view may hold the bytes of an earlier
    one; fresh storage is zero.

    `idle_timeout` and `name` are those of `Pool`.

    Safe from any thread, from finalizers and from signal handlers; nothing here ever waits for a lock.

    >>> buffers = BufferPool()
    >>> view = buffers.acquire(5); view[:] = b"hello"; bytes(view)
    b'hello'

    :raises TypeError: a size is no integer, or `idle_timeout` no number.
    :raises ValueError: a size is negative, `min_size` is 0 or more than `max_size`, or `idle_timeout` is not positive.
    """

    __slots__ = ("__weakref__", "_cycles", "_ledger", "_name", "_oversize", "_uncounted")

    def __init__(
        self,
        *,
        min_size: int = 1 * KIB,
        max_size: int = 16 * MIB,
        max_idle_bytes: int = 64 * MIB,
        wipe: bool = False,
        idle_timeout: float | None = 60.0,
        name: str | None = None,
    ) -> None:
        smallest, largest = natural("min_size", min_size), min(natural("max_size", max_size), sys.maxsize)
        if smallest == 0 or smallest > largest:
            raise ValueError(f"min_size must be from 1 to max_size ({largest}), but is {digits(smallest)}")
        self._ledger = Ledger(natural("max_idle_bytes", max_idle_bytes))
        self._shelves = tuple(
            Shelf(size, SizeClass(self._ledger, wipe=bool(wipe)), idle_timeout) for size in _sizes(smallest, largest)
        )
        self._oversize = SizeClass(self._ledger, wipe=bool(wipe))
        # What was counted before the stats began, for each size class and for what is oversize.
        self._uncounted = [Counts(0, 0)] * (len(self._shelves) + 1)
        self._name = name
        self._cycles = 0
        _collector.register(self)

    def acquire(self, n: int) -> memoryview:
        """A view of `n` writable bytes: format `B`, one dimension. Never waits.

        Drop it, and all that was made of it, to give them back. Or be early, with `view.release()` or by leaving
        `with buffers.acquire(n) as view:`; after that the view itself raises `ValueError`.

        About a tenth of a microsecond for any size, drop included, where the twin is compiled; two or three in Python.

        >>> with buffers.acquire(1000) as view: len(view), view.format, view.readonly
        (1000, 'B', False)

        :raises TypeError: `n` is no integer.
        :raises ValueError: `n` is negative.
        :raises MemoryError: there is no memory for `n` bytes.
        """
        return self._acquire_slow(n)

    def _acquire_slow(self, n: int) -> memoryview:
        length = natural("n", n)
        try:
            for shelf in self._shelves:
                if length <= shelf.size:
                    return shelf.get().lend(length)
            return Storage(self._oversize, length).lend(length)
        except (MemoryError, OverflowError):
            raise MemoryError(f"acquire({digits(length)}): there is no memory for so many bytes") from None

    @property
    def max_size(self) -> int:
        """Bytes of the largest buffer that is kept."""
        return self._shelves[-1].size

    def clear(self) -> int:
        """Drop all idle buffers, the victim's included; how many there were. Freed as `Pool.clear` does.

        >>> buffers.clear(), buffers.stats().bytes_idle
        (0, 0)
        """
        return sum([shelf.clear() for shelf in self._shelves])

    # --- for the collector ---

    def rotate(self) -> list[_collector.Doomed]:
        """One cleanup cycle's part, for each size class."""
        self._cycles += 1
        if not EXACT:
            self._ledger.idle = sum([shelf.stats().idle * shelf.size for shelf in self._shelves])
        return [shard for shelf in self._shelves for shard in shelf.rotate()]

    def idle_due(self) -> float:
        """When idle buffers call for a cycle, in seconds of time.monotonic(); infinity: nothing is idle."""
        return min([shelf.idle_due() for shelf in self._shelves])

    def renew_locks(self) -> None:
        """In the child of a fork."""
        for shelf in self._shelves:
            shelf.renew_locks()

    def set_aside(self) -> Callable[[], list[_collector.Doomed]]:
        """As that of `Pool`. What is lent is seen by who has it, so that goes on being counted."""
        returns = [shelf.set_aside() for shelf in self._shelves]
        uncounted, cycles = self._uncounted, self._cycles
        self._uncounted, self._cycles = self._counts(), 0

        def bring_back() -> list[_collector.Doomed]:
            pairs = zip(self._counts(), self._uncounted, uncounted, strict=True)
            self._uncounted = [now.less(then.less(before)) for now, then, before in pairs]
            self._cycles = cycles
            return [shard for bring_back_shelf in returns for shard in bring_back_shelf()]

        return bring_back

    def _counts(self) -> list[Counts]:
        return [Counts.of(each) for each in [*(shelf.size_class for shelf in self._shelves), self._oversize]]

    # --- looking at it ---

    def stats(self) -> BufferStats:
        """What the pool did since it was made, and where its bytes are. Safe from any thread; waits for nobody.

        >>> view = buffers.acquire(1025); buffers.stats().bytes_in_use
        2048
        """
        *counts, oversize = [now.less(then) for now, then in zip(self._counts(), self._uncounted, strict=True)]
        classes = tuple(
            SizeClassStats(shelf.size, *count, shelf.size_class.in_use, shelf.stats())
            for shelf, count in zip(self._shelves, counts, strict=True)
        )
        return BufferStats(self._name, classes, OversizeStats(*oversize, self._oversize.in_use), self._cycles)

    def __repr__(self) -> str:
        name = hex(id(self)) if self._name is None else repr(self._name)
        return f"<aiopool.BufferPool {name}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Copying and pickling both end here."""
        refuse_copy(self, "buffers")


def _sizes(smallest: int, largest: int) -> Iterator[int]:
    size = smallest
    while size < largest:
        yield size
        size *= 2
    yield largest


def _stop() -> None:
    """At exit: what comes back from now on is not kept. What would keep it may be gone before the last view."""
    for pool in _collector.pools():
        if isinstance(pool, BufferPool):
            pool._ledger.close()


atexit.register(_stop)

if not TYPE_CHECKING and native is not None:
    native.speed_up(BufferPool)
