"""A size class: all blocks of one size, the store that keeps idle ones, and their statistics."""

import weakref
from typing import Any

from .._native import in_c, native
from .block import Block, Content, export
from .displacement import displace_for
from .holders import SLOW_PATH_SAMPLES, Recorded, record_holder
from .idle_budget import IdleBudget
from .observation import Observation
from .store import Store

OVERSIZE = 0
"""Marks the class whose blocks are not kept. Each of its blocks has exactly the requested size."""

PAGE = 4096


def sizes(smallest: int, largest: int) -> list[int]:
    """The sizes of the classes from `smallest` to `largest` bytes.

    They double up to a page. From there on, each doubling has four classes, so a block is at most a quarter larger than
    requested. (Otherwise a message of 2^k bytes plus a header would use twice the memory, and twice the budget.) Even
    finer classes would waste less memory, but an acquire would find an idle block less often.
    """
    found = [smallest]
    while found[-1] * 2 <= PAGE:
        found.append(found[-1] * 2)
    while found[-1] < largest:
        base = found[-1]
        found += [base * quarters // 4 for quarters in (5, 6, 7, 8)]
    return [size for size in found if size < largest] + [largest]


@in_c
class SizeClass:
    """Blocks of `size` bytes. Thread-safe; never waits.

    Checked-out blocks are entries of a dict, each change of which is one C call, atomic with and without a GIL. A
    number that many threads add to would become wrong, and nothing would ever correct it.
    """

    __slots__ = (
        "__weakref__",
        "_checked_out",
        "_itself",
        "_sample_every",
        "_unsampled_hits",
        "_unsampled_others",
        "budget",
        "displaced",
        "holders",
        "size",
        "store",
        "wipe",
    )

    def __init__(self, size: int, store: Store, budget: IdleBudget, wipe: bool, sample_every: int) -> None:
        """One acquire in `sample_every`, a power of two, is recorded; none if it is 0."""
        self.size = size
        self.store = store
        self.budget = budget
        self.wipe = wipe
        #: how many idle blocks were freed to make room for others
        self.displaced = 0
        #: the recorded views that are alive, by the id of their bytes
        self.holders: dict[int, Recorded] = {}
        # The sizes of the blocks that are checked out, by the id of their bytes, which is unique while they live.
        self._checked_out: dict[int, int] = {}
        # Blocks that are checked out refer to the size class by this, so that they do not keep the pool alive.
        self._itself = weakref.ref(self)
        self._sample_every = sample_every
        self._unsampled_hits = 0
        self._unsampled_others = 0

    def acquire(self, n: int) -> memoryview:
        """Return a view of `n` bytes, over an idle block or a new one."""
        store = self.store
        block: Block | None = store.take()
        stands_for = self._stands_for(block is None)
        if block is None:
            block = Block(Content(self.size or n))
            block.content.belong_to(self._itself)
            self.budget.now += 1
            store.created(block)
        store.count_asked(n)  # only now that there is a block, so that failed requests are not counted
        block.leave_budget()
        view = export(block.content, self._itself, n, self.wipe)
        if stands_for:
            self._record(block.content, stands_for)
        return view

    def _stands_for(self, is_new: bool) -> int:
        """How many acquires a record of this one represents; 0 if it is not recorded."""
        if Observation.observer is not None:
            return 1  # the debug mode is on
        every = self._sample_every
        if not every:
            return 0
        # Threads that count at once may lose increments. That is harmless, because sampling need not be exact.
        if is_new:
            every = max(1, every // SLOW_PATH_SAMPLES)
            self._unsampled_others += 1
            return 0 if self._unsampled_others % every else every
        self._unsampled_hits += 1
        return 0 if self._unsampled_hits % every else every

    def _record(self, content: Content, stands_for: int) -> None:
        try:
            self.holders[id(content)] = record_holder(len(content), stands_for)
        except MemoryError:
            pass  # the view exists, and a missing sample does no harm

    def note_checked_out(self, content: Content) -> None:
        """Count `content` as checked out, because a view over it exists now."""
        size = len(content)
        self._checked_out[id(content)] = size
        self.budget.count_in_use(size)

    def note_back(self, content: Content) -> None:
        """Count `content` as no longer checked out, because no view over it exists any more."""
        size = self._checked_out.pop(id(content), 0)
        self.holders.pop(id(content), None)
        if size:
            self.budget.count_in_use(-size)

    def take_back(self, content: Content) -> None:
        """Keep `content`, over which no view exists any more, if there is room."""
        self.note_back(content)  # first, before another thread can check it out again
        size = len(content)
        if self.size == OVERSIZE:
            return
        budget = self.budget
        try:
            if not budget.reserve(size) and not displace_for(budget, self.store, size):
                self.store.reject(content)
                return
        except MemoryError:
            return
        try:
            block = Block(content)
        except MemoryError:
            budget.give_back(size)
            return
        block.enter_budget(budget, size, self._itself)
        try:
            self.store.keep(block)
        except MemoryError:
            pass  # no memory to keep it: it is dropped, which frees some

    def bytes_in_use(self) -> int:
        """The total size of the blocks that are checked out."""
        # A copy made in one C call, because other threads check out blocks meanwhile.
        return sum(list(self._checked_out.values()))


def recount_idle(budget: Any, size_classes: tuple[Any, ...]) -> None:
    """Correct `budget`, if it may be wrong, by counting the idle blocks of `size_classes`. In C it is always right."""
    if native is None and not budget.exact:
        budget.recount(sum([each.size * len(shard) for each in size_classes for _, shard in each.store.shards()]))
