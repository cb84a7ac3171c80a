"""`BufferPool`: memoryviews whose blocks come back by themselves, and not before the last view is gone.

Reusing buffers by hand corrupts data in asyncio: `transport.write(view)` returns while the view is still to be sent, a
cancelled task's traceback still holds it, a codec made an array of it. What is put too early is sent, read or parsed
with another request's bytes in it, and nothing fails. Here nothing is put by hand. See `_core/block.py` for how
CPython itself tells when a buffer is free.

Under it lies the pool's algorithm, once for each size class: a block comes from the running thread's own shard, else is
stolen, else comes from the victim, else is created. All size classes share one budget for what is idle. See
`_core/displacement.py` for what happens when it is full.
"""

import atexit
import os
import sys
from collections.abc import Iterable
from math import inf
from time import monotonic
from typing import Any, NoReturn

from ._checks import digits, name_or_none, natural, refuse_copy, seconds
from ._core import cleanup, freeing
from ._core.holders import DEFAULT_SAMPLE_EVERY
from ._core.idle_budget import IdleBudget
from ._core.observation import introduce
from ._core.registry import pools
from ._core.size_class import OVERSIZE, SizeClass, recount_idle, sizes
from ._core.store import Store
from ._native import in_c, with_c_methods
from .stats import BufferStats, Holder, OversizeStats, SizeClassStats, holders_of, pool_stats

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

    Blocks come in size classes from `min_size` bytes to `max_size`: each twice the one before up to 4 KiB, and four for
    each doubling above. What is larger is served, but not kept.

    `max_idle_bytes` bounds what lies idle, over all size classes and all loops. A block that comes back and does not
    fit makes room by freeing blocks that have been idle longer; if there are none, it is freed.

    `wipe` zeroes a block as soon as its last view is gone. Otherwise a view may hold the bytes of an earlier one; fresh
    blocks are zero.

    One acquire in `sample_every` is recorded for `holders()`, rounded up to a power of two; `None`: none is. In debug
    mode each is.

    `idle_timeout` and `name` are those of `Pool`.

    Safe from any thread, from finalizers and from signal handlers; nothing here ever waits for a lock.

    >>> buffers = BufferPool()
    >>> view = buffers.acquire(5); view[:] = b"hello"; bytes(view)
    b'hello'

    :raises TypeError: a size is no integer, `idle_timeout` no number, or `name` no string.
    :raises ValueError: a size is negative, `min_size` is 0 or more than `max_size`, or `idle_timeout` or `sample_every`
        is not positive.
    """

    __slots__ = ("__weakref__", "_budget", "_max_idle_bytes", "_name", "_oversize")

    def __init__(
        self,
        *,
        min_size: int = 1 * KIB,
        max_size: int = 16 * MIB,
        max_idle_bytes: int = 64 * MIB,
        wipe: bool = False,
        idle_timeout: float | None = 60.0,
        name: str | None = None,
        sample_every: int | None = DEFAULT_SAMPLE_EVERY,
    ) -> None:
        smallest, largest = natural("min_size", min_size), min(natural("max_size", max_size), sys.maxsize)
        if smallest == 0 or smallest > largest:
            raise ValueError(f"min_size must be from 1 to max_size ({largest}), but is {digits(smallest)}")
        self._max_idle_bytes = natural("max_idle_bytes", max_idle_bytes)
        timeout = inf if idle_timeout is None else seconds("idle_timeout", idle_timeout)
        every = _power_of_two(sample_every)
        self._name = name_or_none(name)
        label = repr(self)
        known = sizes(smallest, largest)
        stores = tuple([Store(1, None, timeout, label) for _ in known])
        self._budget = budget = IdleBudget(self._max_idle_bytes, stores)
        self._size_classes = tuple(
            [SizeClass(size, store, budget, bool(wipe), every) for size, store in zip(known, stores, strict=True)]
        )
        self._oversize = SizeClass(OVERSIZE, Store(1, None, timeout, label), budget, bool(wipe), every)
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

        >>> view = buffers.acquire(1025); stats = buffers.stats()
        >>> stats.bytes_in_use, stats.peak_in_use >= 2048, stats.max_idle_bytes == 64 << 20
        (2048, True, True)
        """
        return self._stats_of(self._size_classes)

    def _stats_of_used(self) -> BufferStats:
        """The same without size classes that were never used. Those are most of them, and most of the time it takes."""
        return self._stats_of([each for each in self._size_classes if each.store.counts()])

    def _stats_of(self, size_classes: Iterable[SizeClass]) -> BufferStats:
        classes = tuple([self._class_stats(each) for each in size_classes])
        oversize = self._class_stats(self._oversize)
        return BufferStats(
            self._name,
            classes,
            OversizeStats(oversize.served, oversize.asked, oversize.bytes_in_use),
            # Where time passed for one size class only, only that went through a cycle.
            max([each.blocks.cycles for each in classes], default=self._size_classes[0].store.cycles()),
            self._max_idle_bytes,
            self._budget.peak_used,
            self._budget.peak_in_use,
        )

    def holders(self, /) -> tuple[Holder, ...]:
        """Who holds the bytes: what each place in the program has acquired and not dropped, the oldest first.

        Only acquires that were recorded are known: one in `sample_every`; and one in a sixteenth of that of those that
        found nothing idle on their own loop, with which a pool grows. In debug mode each is. Safe from any thread.

        >>> every = BufferPool(sample_every=1); view = every.acquire(5000); [held] = every.holders()
        >>> held.views, held.bytes
        (1, 5120)
        """
        classes = (*self._size_classes, self._oversize)
        # Copies, each made in one C call: other threads acquire meanwhile.
        return holders_of([record for each in classes for record in list(each.holders.values())], monotonic())

    def _class_stats(self, size_class: SizeClass) -> SizeClassStats:
        blocks = pool_stats(self._name, size_class.store)
        asked = served = 0
        if blocks.processors:
            asked = sum([counters.asked for counters in size_class.store.counts().values()])
            # Not all gets: one may find nothing idle, and no memory for a block of its own.
            served = blocks.hits + blocks.created
        return SizeClassStats(size_class.size, served, asked, size_class.bytes_in_use(), blocks, size_class.displaced)

    def __repr__(self) -> str:
        name = hex(id(self)) if self._name is None else repr(self._name)
        return f"<aiopool.BufferPool {name}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Copying and pickling both end here."""
        refuse_copy(self, "buffers")


def _power_of_two(sample_every: int | None) -> int:
    if sample_every is None:
        return 0
    every = natural("sample_every", sample_every)
    if every == 0:
        raise ValueError("sample_every must be at least 1, or None")
    return 1 << min((every - 1).bit_length(), 62)


def _stop() -> None:
    """At exit: what comes back from now on is not kept. What would keep it may be gone before the last view."""
    for pool in pools():
        if isinstance(pool, BufferPool):
            pool._budget.close()


def _after_fork_in_child() -> None:
    for pool in pools():
        if isinstance(pool, BufferPool):
            pool._budget.renew_lock()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
