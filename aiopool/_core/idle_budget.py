"""How many bytes a buffer pool may keep idle, over all its size classes and all loops.

Each block that is put reserves its bytes here, and gives them back when it is taken or freed. So the bound holds at
every moment. What a block that does not fit displaces is in `displacement.py`.

Many threads write here. In Python that is exact with a GIL, since no thread switch comes inside a `+=` on an attribute;
but an exception may come, as where there is no memory for the sum. Without a GIL some additions are lost. So the pool
counts anew at the next cleanup cycle, or the budget would be used up one day with nothing idle. In C each processor has
an allowance, which it takes from the budget in larger pieces: taking a block and putting it back touches no memory that
another processor writes.
"""

import weakref

from .._native import has_gil, in_c, native
from .store import Store

EXACT = native is not None or has_gil()
"""Whether what many threads count is exact."""


@in_c
class IdleBudget:
    """Bytes that may lie idle. Safe from any thread; never waits."""

    __slots__ = ("_stores", "exact", "in_use", "limit", "now", "peak_in_use", "peak_used", "used")

    def __init__(self, limit: int, stores: tuple[Store, ...]) -> None:
        """`limit` is in bytes; `stores` are where the blocks lie."""
        # Weak, because an idle block refers to its budget.
        self._stores = [weakref.ref(store) for store in stores]
        self.limit = limit
        self.used = 0
        #: the most that it was
        self.peak_used = 0
        #: bytes that are checked out, and the most that it was
        self.in_use = 0
        self.peak_in_use = 0
        #: how many blocks were created; what idle blocks are compared by
        self.now = 0
        self.exact = EXACT

    def stores(self) -> list[Store]:
        """Where the blocks lie."""
        return [store for each in self._stores if (store := each()) is not None]

    def reserve(self, size: int) -> bool:
        """Count `size` more idle bytes. `False`: there may not be as many."""
        # First counted, then looked at: of two threads that both come to the limit, none gets past it.
        self.used += size
        used = self.used
        if used <= self.limit:
            if used > self.peak_used:
                self.peak_used = used
            return True
        self.give_back(size)
        return False

    def give_back(self, size: int) -> None:
        """`size` bytes are idle no more."""
        try:
            self.used -= size
        except MemoryError:
            self.exact = False
        except BaseException:
            self.exact = False
            raise

    def count_in_use(self, more: int) -> None:
        """`more` bytes are checked out, or fewer. For the peak only: nothing else depends on the sum."""
        self.in_use += more
        if self.in_use > self.peak_in_use:
            self.peak_in_use = self.in_use

    def recount(self, used: int) -> None:
        """Set right what was lost."""
        self.used = used
        self.exact = EXACT

    def renew_lock(self) -> None:
        """In the child of a fork. Only C has a lock here: there one thread displaces at a time."""

    def close(self) -> None:
        """From now on nothing is kept."""
        self.limit = 0
