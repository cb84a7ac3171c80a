"""One pool's part that belongs to one processor: a private slot, and a shared list that others may steal from.

The private slot is a list of at most one object, because `list.pop` takes it and empties the slot in one C call. A
finalizer or a signal handler can run between any two bytecodes, so taking with two (read, then clear) would hand one
object out twice.

The shared list has a lock, and the lock is only ever tried. The holder may be a frame further down this very stack (a
finalizer runs inside it), and then waiting would be a deadlock; or a thread that was descheduled in it, and then
waiting would stop a loop for milliseconds. Code that does not get the lock does the next best thing: a put
goes into private space, past the one slot, and a take finds nothing here. The trade-off: under contention an object can
be out of the others' reach until the next put that gets the lock moves it over, and a get can miss although something
was there. If a signal handler raises in the one moment between getting the lock and the `try` behind it, the shared
list stays out of reach until the next cleanup cycle replaces the shard.

The lock guards counting and moving. That no object is ever handed out twice does not depend on it: each hand-out is one
`list.pop`, `deque.pop` or `deque.popleft`, atomic with and without a GIL.
"""

from collections import deque
from threading import Lock
from typing import Any

from .._native import in_c


@in_c
class Counters:
    """What one processor did with one pool. Only its own thread counts here, so `+=` needs no lock.

    The off-loop counters have many writers: exact with a GIL, since no thread switch comes inside a `+=` on an
    attribute; without one they may miss some.
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
        #: of these
        self.over_max_idle = 0
        #: bytes, in a size class
        self.asked = 0


@in_c
class Shard:
    """Objects that one processor put. `private` is for its owner alone; everything else for any thread.

    A shard lives for two cleanup cycles. Its counters live as long as the pool, and each shard gets them in turn.
    """

    __slots__ = ("counters", "lock", "private", "shared", "slots")

    def __init__(self, counters: Counters, slots: int = 1) -> None:
        """`slots` is how many objects stay private while the lock can be had.

        One; but none in the shard of off-loop code, so that nothing gets stuck in a worker thread. Many threads are
        that shard's owner. What they do to its private space (where objects go while the lock is busy) is one C call
        each, so that is safe too.
        """
        self.private: list[Any] = []
        self.shared: deque[Any] = deque()
        self.lock = Lock()
        self.slots = slots
        self.counters = counters

    def __len__(self) -> int:
        return len(self.private) + len(self.shared)

    def holds_private(self, obj: object) -> bool:
        """Whether `obj` lies in private space already; by identity."""
        for held in self.private:  # noqa: SIM110 - a generator would cost more than all the rest of a put
            if held is obj:
                return True
        return False

    def put(self, obj: object) -> None:
        """Keep `obj`, in the private slot if that is free. Owner only."""
        private = self.private
        # Between the check and the append a finalizer may fill the slot. Then two objects are private; the owner's
        # gets find both, and the next put moves one over.
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
        """The object in private space, or `None`. Owner only."""
        private = self.private
        if not private:
            return None  # usual on the slow paths, and an exception would cost more than all the rest
        try:
            return private.pop()
        except IndexError:
            return None  # a finalizer took it since we looked

    def take_newest(self) -> Any:
        """The object put last to the shared list: for the owner, in whose cache it is. `None`: nothing, or busy."""
        lock = self.lock
        if not self.shared or not lock.acquire(False):
            return None
        try:
            return self.shared.pop()
        except IndexError:
            return None  # another thread took it since we looked
        finally:
            lock.release()

    def take_oldest(self) -> Any:
        """The object put first to the shared list: for stealers, which so stay out of the owner's way."""
        lock = self.lock
        if not self.shared or not lock.acquire(False):
            return None
        try:
            return self.shared.popleft()
        except IndexError:
            return None  # as above
        finally:
            lock.release()

    def free_newest(self) -> bool:
        """Let go of one shared object; `False`: there was none. For retired shards.

        It asks for no lock, because the object dies here, and no object may die while a lock is held. One `pop` is
        atomic, and a last stealer that is still at work finds one object fewer.

        The newest first, because of allocators that return memory from the top of the heap only, as glibc's does:
        freed from the bottom up, a burst of buffers is returned in one call at the very end, which takes as long as
        freeing everything at once.
        """
        try:
            self.shared.pop()
        except IndexError:
            return False
        return True

    def renew_lock(self) -> None:
        """In the child of a fork: a thread that held the lock is not there to release it."""
        self.lock = Lock()
