"""How many bytes a buffer pool may keep idle, over all its size classes and all loops.

Each block that is put reserves its bytes here, and gives them back when it is taken or freed. So the bound holds at
every moment.

Many threads write here. In Python that is exact with a GIL, since no thread switch comes inside a `+=` on an attribute;
but an exception may come, as where there is no memory for the sum. Without a GIL some additions are lost. So the pool
counts anew at the next cleanup cycle, or the budget would be used up one day with nothing idle. In C each processor has
an allowance, which it takes from the budget in larger pieces: taking a block and putting it back touches no memory that
another processor writes.
"""

from .._native import has_gil, in_c, native

EXACT = native is not None or has_gil()
"""Whether what many threads count is exact."""


@in_c
class IdleBudget:
    """Bytes that may lie idle. Safe from any thread; never waits."""

    __slots__ = ("exact", "limit", "used")

    def __init__(self, limit: int) -> None:
        """`limit` is in bytes."""
        self.limit = limit
        self.used = 0
        self.exact = EXACT

    def reserve(self, size: int) -> bool:
        """Count `size` more idle bytes. `False`: there may not be as many."""
        # First counted, then looked at: of two threads that both come to the limit, none gets past it.
        self.used += size
        if self.used <= self.limit:
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

    def recount(self, used: int) -> None:
        """Set right what was lost."""
        self.used = used
        self.exact = EXACT

    def close(self) -> None:
        """From now on nothing is kept."""
        self.limit = 0
