"""A size class: all blocks of one size, the store in which they lie idle, and what was done with them."""

import weakref
from typing import Any

from .._native import in_c, native
from .block import Block, Content, export
from .idle_budget import IdleBudget
from .store import Store

OVERSIZE = 0
"""The size of the class whose blocks are not kept; each has the size that is asked for."""


@in_c
class SizeClass:
    """Blocks of `size` bytes. Safe from any thread; never waits.

    What is checked out is no number that many threads add to, for nothing would ever set that right again. It is a
    dict with an entry for each block; each change is one C call, atomic with and without a GIL.
    """

    __slots__ = ("__weakref__", "_checked_out", "_itself", "budget", "size", "store", "wipe")

    def __init__(self, size: int, store: Store, budget: IdleBudget, wipe: bool) -> None:
        self.size = size
        self.store = store
        self.budget = budget
        self.wipe = wipe
        # By the id of the bytes, which is unique while they live: their size.
        self._checked_out: dict[int, int] = {}
        # What is checked out knows its size class by this, so that it does not keep the pool alive.
        self._itself = weakref.ref(self)

    def acquire(self, n: int) -> memoryview:
        """A view of `n` bytes, over an idle block or a new one."""
        store = self.store
        block: Block | None = store.take()
        if block is None:
            block = Block(Content(self.size or n))
            block.content.belong_to(self._itself)
            store.created(block)
        store.count_asked(n)  # now that there is a block: what cannot be served is not counted
        block.leave_budget()
        return export(block.content, self._itself, n, self.wipe)

    def note_checked_out(self, content: Content) -> None:
        """A view over `content` exists, from now on."""
        self._checked_out[id(content)] = len(content)

    def note_back(self, content: Content) -> None:
        """No view over `content` exists any more."""
        self._checked_out.pop(id(content), None)

    def take_back(self, content: Content) -> None:
        """No view over `content` exists any more: keep it, if there is room."""
        self.note_back(content)  # before another thread can get it, and check it out
        size = len(content)
        if self.size == OVERSIZE or not self.budget.reserve(size):
            return
        try:
            block = Block(content)
        except MemoryError:
            self.budget.give_back(size)
            return
        block.enter_budget(self.budget, size)
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
