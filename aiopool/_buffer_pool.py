"""`BufferPool`: memoryviews whose blocks return to the pool by themselves, when the last view is gone.

Reusing buffers by hand corrupts data in asyncio: `transport.write(view)` returns before the view has been sent, the
traceback of a cancelled task still refers to it, or a codec created an array over it. A buffer that is put too early is
sent, read or parsed with the bytes of another request in it, and no error is raised. Here user code puts nothing back.
`_core/block.py` describes how CPython itself tells when a buffer is free.

Each size class uses the algorithm of `Pool`: a block comes from the running thread's own shard, or is stolen, or comes
from the victim, or is created. All size classes share one budget of idle bytes. `_core/displacement.py` describes what
happens when the budget is full.
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
    """The data that acquire uses."""

    __slots__ = ("_size_classes",)

    _size_classes: tuple[SizeClass, ...]


@with_c_methods
class BufferPool(BufferPoolBase):
    """A pool of buffers of any size, shared by all event-loop threads of the process.

    `acquire(n)` returns a plain memoryview of `n` writable bytes. You need not put it back: its block is reused when
    the last view, slice, cast or array over it is gone, in any thread, and never before.

    Blocks come in size classes from `min_size` to `max_size` bytes. Sizes double up to 4 KiB, and above that each
    doubling has four classes. Larger buffers are allocated, but not kept.

    `max_idle_bytes` is the most bytes kept idle, over all size classes and all loops. A block that comes back and does
    not fit makes room by freeing blocks that have been idle longer; if there are none, it is freed.

    `wipe` zeroes a block as soon as its last view is gone. Otherwise a view may contain the bytes of an earlier one;
    new blocks are zero.

    One acquire in `sample_every`, rounded up to a power of two, is recorded for `holders()`; with `None`, none is. In
    debug mode all are recorded.

    `idle_timeout` and `name` are as for `Pool`.

    Safe to use from any thread, from finalizers and from signal handlers; never waits for a lock.

    >>> buffers = BufferPool()
    >>> view = buffers.acquire(5); view[:] = b"hello"; bytes(view)
    b'hello'

    :raises TypeError: a size is not an integer, `idle_timeout` not a number, or `name` not a string.
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
        """Return a view of `n` writable bytes: format `B`, one dimension. Never waits.

        The block returns to the pool when the view, and all slices and arrays over it, are dropped. To return it early,
        call `view.release()` or leave a block of `with buffers.acquire(n) as view:`; using the view then raises
        `ValueError`.

        Takes about 0.1 µs for any size with the C extension, including the drop, and two or three microseconds in
        Python.

        >>> with buffers.acquire(1000) as view: len(view), view.format, view.readonly
        (1000, 'B', False)

        :raises TypeError: `n` is not an integer.
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
        """The size of the largest buffer that is kept, in bytes."""
        size: int = self._size_classes[-1].size
        return size

    def clear(self, /) -> int:
        """Drop all idle blocks, including the victim's, and return how many there were. Frees them like `Pool.clear`.

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

    # --- inspecting ---

    def stats(self, /) -> BufferStats:
        """Return a snapshot: the pool's counts since its creation, and its bytes now. Thread-safe; never waits.

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
        """List the places in the program that have acquired views and not dropped them, the oldest first.

        Only recorded acquires are known: one in `sample_every`. Acquires that find no idle block on their own loop,
        which make a pool grow, are recorded sixteen times as often. In debug mode all are recorded. Thread-safe.

        >>> every = BufferPool(sample_every=1); view = every.acquire(5000); [held] = every.holders()
        >>> held.views, held.bytes
        (1, 5120)
        """
        classes = (*self._size_classes, self._oversize)
        # Copies made in one C call each, because other threads acquire meanwhile.
        return holders_of([record for each in classes for record in list(each.holders.values())], monotonic())

    def _class_stats(self, size_class: SizeClass) -> SizeClassStats:
        blocks = pool_stats(self._name, size_class.store)
        asked = served = 0
        if blocks.processors:
            asked = sum([counters.asked for counters in size_class.store.counts().values()])
            # Fewer than the gets, because a get may find nothing idle and no memory for a new block.
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
    """At exit: stop keeping blocks, because the code that keeps them may be gone before the last view."""
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
