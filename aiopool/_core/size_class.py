"""A size class: all blocks of one size, the store in which they lie idle, and what was done with them."""

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
"""The size of the class whose blocks are not kept; each has the size that is asked for."""

PAGE = 4096


def sizes(smallest: int, largest: int) -> list[int]:
    """The sizes of the classes from `smallest` to `largest` bytes.

    They double up to a page, and from there on there are four for each doubling, so that a block is at most a quarter
    larger than what it is asked for. (A message of 2^k bytes and a header would else take twice the memory, and twice
    the budget.) Still finer classes would waste less, and find less idle.
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
    """Blocks of `size` bytes. Safe from any thread; never waits.

    What is checked out is no number that many threads add to, for nothing would ever set that right again. It is a
    dict with an entry for each block; each change is one C call, atomic with and without a GIL.
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
        """One acquire in `sample_every` is recorded, a power of two; 0: none is."""
        self.size = size
        self.store = store
        self.budget = budget
        self.wipe = wipe
        #: how many idle blocks made room for others
        self.displaced = 0
        #: what was recorded of views that are alive, by the id of their bytes
        self.holders: dict[int, Recorded] = {}
        # By the id of the bytes, which is unique while they live: their size.
        self._checked_out: dict[int, int] = {}
        # What is checked out knows its size class by this, so that it does not keep the pool alive.
        self._itself = weakref.ref(self)
        self._sample_every = sample_every
        self._unsampled_hits = 0
        self._unsampled_others = 0

    def acquire(self, n: int) -> memoryview:
        """A view of `n` bytes, over an idle block or a new one."""
        store = self.store
        block: Block | None = store.take()
        stands_for = self._stands_for(block is None)
        if block is None:
            block = Block(Content(self.size or n))
            block.content.belong_to(self._itself)
            self.budget.now += 1
            store.created(block)
        store.count_asked(n)  # now that there is a block: what cannot be served is not counted
        block.leave_budget()
        view = export(block.content, self._itself, n, self.wipe)
        if stands_for:
            self._record(block.content, stands_for)
        return view

    def _stands_for(self, is_new: bool) -> int:
        """How many acquires a record of this one stands for; 0: it is not recorded."""
        if Observation.observer is not None:
            return 1  # the debug mode is on
        every = self._sample_every
        if not every:
            return 0
        # Not exact where threads count at once, and need not be.
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
            pass  # the view is there, and what is recorded are samples

    def note_checked_out(self, content: Content) -> None:
        """A view over `content` exists, from now on."""
        size = len(content)
        self._checked_out[id(content)] = size
        self.budget.count_in_use(size)

    def note_back(self, content: Content) -> None:
        """No view over `content` exists any more."""
        size = self._checked_out.pop(id(content), 0)
        self.holders.pop(id(content), None)
        if size:
            self.budget.count_in_use(-size)

    def take_back(self, content: Content) -> None:
        """No view over `content` exists any more: keep it, if there is room."""
        self.note_back(content)  # before another thread can get it, and check it out
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
            pass  # there is none to keep it with: it is dropped, and gives some back

    def bytes_in_use(self) -> int:
        """Bytes of the blocks that are checked out."""
        # A copy, made in one C call: other threads check out meanwhile.
        return sum(list(self._checked_out.values()))


def recount_idle(budget: Any, size_classes: tuple[Any, ...]) -> None:
    """Set `budget` right by what lies in the stores of `size_classes`, if it may be wrong. In C it never is."""
    if native is None and not budget.exact:
        budget.recount(sum([each.size * len(shard) for each in size_classes for _, shard in each.store.shards()]))
