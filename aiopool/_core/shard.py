"""One pool's part that belongs to one processor: a private slot, and a shared list that others may steal from.

The private slot is a list of at most one object, because `list.pop` takes the object and empties the slot in one C
call. A finalizer or a signal handler can run between any two bytecodes, so taking it in two steps (read, then clear)
could return one object twice.

The shared list has a lock, and no code ever waits for it. The holder may be this same thread, interrupted by the
finalizer that wants the lock, and waiting would be a deadlock; or it is another thread that was descheduled, and
waiting would stop a loop for milliseconds. Without the lock, a put adds the object to the private list, beyond the one
slot, and a steal finds nothing here. The trade-off: under contention, an object can be out of reach of other processors
until the next put that gets the lock moves it to the shared list, and a get can miss although an object was idle. If a
signal handler raises between acquiring the lock and the `try` that follows, other processors cannot steal from the
shared list until the next cleanup cycle replaces the shard.

The lock guards counting, moving and stealing. Returning each object only once does not depend on it, because every take
is one `list.pop`, `deque.pop` or `deque.popleft`, which is atomic with and without a GIL. So the owner's take needs no
lock, and neither does a put in a shard without a private slot, which is one `deque.append`.
"""

from collections import deque
from threading import Lock
from typing import Any

from .._native import in_c


@in_c
class Counters:
    """Counts of what one processor did with one pool. Only its own thread writes them, so `+=` needs no lock.

    The off-loop counters have many writers. They are exact with a GIL, because threads never switch inside a `+=` on an
    attribute; without a GIL some increments may be lost.
    """

    __slots__ = (
        "asked",
        "created",
        "misses",
        "over_max_idle",
        "private",
        "puts",
        "rejected",
        "shared",
        "stolen",
        "victim",
    )

    def __init__(self) -> None:
        self.private = 0
        self.shared = 0
        self.stolen = 0
        self.victim = 0
        self.misses = 0
        self.created = 0
        self.puts = 0
        self.rejected = 0
        #: the part of `rejected` that was over `max_idle`
        self.over_max_idle = 0
        #: requested bytes, in a size class
        self.asked = 0


@in_c
class Shard:
    """Objects that one processor put. Only the owner may touch `private`; any thread may use everything else.

    A shard lives for two cleanup cycles. Its counters live as long as the pool and pass from shard to shard.
    """

    __slots__ = ("counters", "lock", "private", "shared", "slots")

    def __init__(self, counters: Counters, slots: int = 1) -> None:
        """`slots` objects stay private: one, but none in the off-loop shard, so that none is stuck in a worker thread.

        All off-loop threads are owners of the off-loop shard.
        """
        self.private: list[Any] = []
        self.shared: deque[Any] = deque()
        self.lock = Lock()
        self.slots = slots
        self.counters = counters

    def __len__(self) -> int:
        return len(self.private) + len(self.shared)

    def holds_private(self, obj: object) -> bool:
        """Whether `obj` is in `private`; compares by identity."""
        for held in self.private:  # noqa: SIM110 - a generator would cost more than the rest of a put
            if held is obj:
                return True
        return False

    def put(self, obj: object) -> None:
        """Keep `obj`, in the private slot if that is free. Owner only."""
        if not self.slots:
            self.shared.append(obj)
            return
        private = self.private
        # A finalizer may fill the slot between the check and the append. Then two objects are private; the owner's
        # gets find both, and the next put moves one to the shared list.
        if len(private) < self.slots:
            private.append(obj)
            return
        lock = self.lock
        if not lock.acquire(False):
            private.append(obj)
            return
        try:
            self.shared.append(obj)
            while len(private) > self.slots:
                self.shared.append(private.pop())
        except IndexError:
            pass  # a finalizer took the private objects between the check and the pop: nothing is left to move
        finally:
            lock.release()

    def take_private(self) -> Any:
        """Take a private object; `None` if there is none. Owner only."""
        private = self.private
        if not private:
            return None  # common on the slow paths, where an exception would cost more than everything else
        try:
            return private.pop()
        except IndexError:
            return None  # a finalizer took it after the check

    def take_newest(self) -> Any:
        """Take the object put last to the shared list; `None` if it is empty.

        For the owner, whose CPU cache may still hold that object.
        """
        shared = self.shared
        if not shared:
            return None
        try:
            return shared.pop()
        except IndexError:
            return None  # another thread took it after the check

    def take_oldest(self) -> Any:
        """Take the object put first to the shared list; `None` if it is empty or locked.

        For other processors, which use the opposite end from the owner.
        """
        lock = self.lock
        if not self.shared or not lock.acquire(False):
            return None
        try:
            return self.shared.popleft()
        except IndexError:
            return None  # another thread took it after the check
        finally:
            lock.release()

    def free_newest(self) -> bool:
        """Free one shared object; return `False` if there was none. For retired shards.

        It takes no lock, because no object may be freed while a lock is held. One `pop` is atomic, and a processor that
        is still stealing just finds one object fewer.

        The newest is freed first, because some allocators, such as glibc's, return memory only from the top of the
        heap. Freed from the bottom up, a burst of buffers would be returned in one call at the very end, which takes as
        long as freeing everything at once.
        """
        try:
            self.shared.pop()
        except IndexError:
            return False
        return True

    def renew_lock(self) -> None:
        """In the child of a fork: replace the lock, because a thread that held it is gone."""
        self.lock = Lock()
