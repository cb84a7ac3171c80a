"""`BufferPool`: memoryviews whose blocks come back by themselves, and not before the last view is gone.

Reusing buffers by hand corrupts data in asyncio: `transport.write(view)` returns while the view is still to be sent, a
cancelled task's traceback still holds it, a codec made an array of it. What is put too early is sent, read or parsed
with another request's bytes in it, and nothing fails. Here nothing is put by hand. See `_core/block.py` for how
CPython itself tells when a buffer is free.

Under it lies the pool's algorithm, once for each size class: a block comes from the running thread's own shard, else is
stolen, else comes from the victim, else is created. Sizes double from class to class. That wastes up to half of each
block, though not of the memory: pages that are never touched cost nothing. Finer classes would waste less and hit less.
"""

import atexit
import sys
from collections.abc import Iterator
from math import inf
from typing import Any, NoReturn

from ._checks import digits, name_or_none, natural, refuse_copy, seconds
from ._core import cleanup, freeing
from ._core.idle_budget import IdleBudget
from ._core.observation import introduce
from ._core.registry import pools
from ._core.size_class import OVERSIZE, SizeClass, recount_idle
from ._core.store import Store
from ._native import in_c, with_c_methods
from .stats import BufferStats, OversizeStats, SizeClassStats, pool_stats

KIB = 1024
MIB = 1024 * KIB


@in_c
class BufferPoolBase:
    """What acquire looks at."""

    __slots__ = ("_size_classes",)

    _size_classes: tuple[SizeClass, ...]


@with_c_methods
class BufferPool(BufferPoolBase):
    """Buffers of any size, shared by every event-loop thread of the process.

    `acquire(n)` gives a plain memoryview of `n` writable bytes. There is nothing to give back: its block is reused when
    the last view, slice, cast or array over it has gone, in whichever thread, and never before.

    Blocks come in size classes: `min_size` bytes, twice that, and so on to `max_size`. What is larger is served, but
    not kept.

    `max_idle_bytes` bounds what lies idle, over all size classes and all loops; a block that comes back beyond it is
    freed.

    `wipe` zeroes a block as soon as its last view is gone. Otherwise a view may hold the bytes of an earlier one; fresh
    blocks are zero.

    `idle_timeout` and `name` are those of `Pool`.

    Safe from any thread, from finalizers and from signal handlers; nothing here ever waits for a lock.

    >>> buffers = BufferPool()
    >>> view = buffers.acquire(5); view[:] = b"hello"; bytes(view)
    b'hello'

    :raises TypeError: a size is no integer, `idle_timeout` no number, or `name` no string.
    :raises ValueError: a size is negative, `min_size` is 0 or more than `max_size`, or `idle_timeout` is not positive.
    """

    __slots__ = ("__weakref__", "_budget", "_name", "_oversize")

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
        budget = IdleBudget(natural("max_idle_bytes", max_idle_bytes))
        timeout = inf if idle_timeout is None else seconds("idle_timeout", idle_timeout)
        self._name = name_or_none(name)
        self._budget = budget
        label = repr(self)
        self._size_classes = tuple(
            SizeClass(size, Store(1, None, timeout, label), budget, bool(wipe)) for size in _sizes(smallest, largest)
        )
        self._oversize = SizeClass(OVERSIZE, Store(1, None, timeout, label), budget, bool(wipe))
        introduce(self)

    @property
    def _stores(self) -> tuple[Any, ...]:
        recount_idle(self._budget, self._size_classes)
        return tuple([each.store for each in (*self._size_classes, self._oversize)])

    def acquire(self, n: int, /) -> memoryview:
        """A view of `n` writable bytes: format `B`, one dimension. Never waits.

        Drop it, and all that was made of it, to return them. Or return them early, with `view.release()` or by leaving
        `with buffers.acquire(n) as view:`; after that the view itself raises `ValueError`.

        About a tenth of a microsecond for any size, drop included, with the C extension; two or three in Python.

        >>> with buffers.acquire(1000) as view: len(view), view.format, view.readonly
        (1000, 'B', False)

        :raises TypeError: `n` is no integer.
        :raises ValueError: `n` is negative.
        :raises MemoryError: `n` bytes cannot be allocated.
        """
        return self._acquire_slow(n)

    def _acquire_slow(self, n: int) -> memoryview:
        length = natural("n", n)
        try:
            for size_class in self._size_classes:
                if length <= size_class.size:
                    return size_class.acquire(length)
            return self._oversize.acquire(length)
        except (MemoryError, OverflowError):
            raise MemoryError(f"acquire({digits(length)}): cannot allocate {digits(length)} bytes") from None

    @property
    def max_size(self) -> int:
        """Bytes of the largest buffer that is kept."""
        size: int = self._size_classes[-1].size
        return size

    def clear(self, /) -> int:
        """Drop all idle buffers, the victim's included; how many there were. Freed as `Pool.clear` does.

        >>> buffers.clear(), buffers.stats().bytes_idle
        (0, 0)
        """
        stores = self._stores
        count = 0
        for store in stores:
            retired = store.clear()
            count += sum(map(len, retired))
            freeing.retire(retired)
            del retired
        cleanup.emptied(stores)
        return count

    # --- looking at it ---

    def stats(self, /) -> BufferStats:
        """What the pool did since it was created, and where its bytes are. Safe from any thread; never waits.

        >>> view = buffers.acquire(1025); buffers.stats().bytes_in_use
        2048
        """
        classes = tuple([self._class_stats(each) for each in self._size_classes])
        oversize = self._class_stats(self._oversize)
        return BufferStats(
            self._name,
            classes,
            OversizeStats(oversize.served, oversize.asked, oversize.bytes_in_use),
            classes[0].blocks.cycles,
        )

    def _class_stats(self, size_class: SizeClass) -> SizeClassStats:
        blocks = pool_stats(self._name, size_class.store)
        asked = sum([counters.asked for counters in size_class.store.counts().values()])
        # Not all gets: one may find nothing idle, and no memory for a block of its own.
        served = blocks.hits + blocks.created
        return SizeClassStats(size_class.size, served, asked, size_class.bytes_in_use(), blocks)

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
    for pool in pools():
        if isinstance(pool, BufferPool):
            pool._budget.close()


atexit.register(_stop)
