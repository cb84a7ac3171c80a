"""The budget of idle bytes of one buffer pool, over all its size classes and all loops.

Each block that is put reserves its bytes here, and gives them back when it is taken or freed, so the limit holds at
every moment. `displacement.py` deals with blocks that do not fit.

Many threads write to a budget. In Python the sum is exact with a GIL, because threads never switch inside a `+=` on an
attribute; but the addition may raise, if there is no memory for the sum. Without a GIL some additions are lost. In both
cases the pool recounts at the next cleanup cycle; otherwise the budget could end up exhausted with nothing idle. In C
each processor has an allowance that it draws from the budget in larger pieces, so that taking a block and putting it
back does not touch memory that another processor writes.
"""

import weakref

from .._native import has_gil, in_c, native
from .store import Store

EXACT = native is not None or has_gil()
"""Whether counters that many threads write are exact."""


@in_c
class IdleBudget:
    """Bytes that may be kept idle. Thread-safe; never waits."""

    __slots__ = ("_stores", "exact", "in_use", "limit", "now", "peak_in_use", "peak_used", "used")

    def __init__(self, limit: int, stores: tuple[Store, ...]) -> None:
        """`limit` is in bytes; `stores` hold the idle blocks."""
        # Weak references, because an idle block refers to its budget.
        self._stores = [weakref.ref(store) for store in stores]
        self.limit = limit
        self.used = 0
        #: the highest value that `used` had
        self.peak_used = 0
        #: bytes that are checked out, and the highest value that this had
        self.in_use = 0
        self.peak_in_use = 0
        #: how many blocks were created; serves as the time at which a block becomes idle
        self.now = 0
        self.exact = EXACT

    def stores(self) -> list[Store]:
        """The stores that hold the idle blocks."""
        return [store for each in self._stores if (store := each()) is not None]

    def reserve(self, size: int) -> bool:
        """Count `size` more idle bytes. Returns `False`, and counts nothing, if that would exceed the limit."""
        # First add, then check, so that two threads that reserve at once cannot exceed the limit together.
        self.used += size
        used = self.used
        if used <= self.limit:
            if used > self.peak_used:
                self.peak_used = used
            return True
        self.give_back(size)
        return False

    def give_back(self, size: int) -> None:
        """Count `size` fewer idle bytes."""
        try:
            self.used -= size
        except MemoryError:
            self.exact = False
        except BaseException:
            self.exact = False
            raise

    def count_in_use(self, more: int) -> None:
        """Add `more`, which may be negative, to the bytes checked out. Only used for the peak."""
        self.in_use += more
        if self.in_use > self.peak_in_use:
            self.peak_in_use = self.in_use

    def recount(self, used: int) -> None:
        """Correct `used`, after additions were lost."""
        self.used = used
        self.exact = EXACT

    def renew_lock(self) -> None:
        """In the child of a fork: do nothing. Only the C version has a lock, so that one thread displaces at a time."""

    def close(self) -> None:
        """Reject every block from now on."""
        self.limit = 0
