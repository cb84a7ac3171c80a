"""Where an object is at home: the loop that a loop-bound pool's object was made on.

A processor will not do as the answer. A thread that runs loop after loop keeps its processor, and a loop may be run by
one thread now and by another later. So the shards of a loop-bound pool are kept by home instead of by processor id.
That alone is what keeps objects apart: a get looks only where its own loop's home is the key, and the fast paths, which
look for an id, find nothing and leave everything to the slow ones.

Two more things are known of a home. When its loop ends, it empties all its shards: the loop holds an object for it, and
lets go of that when it is closed. And while its loop lives, what cleanup cycles drop is dropped there, for the
finalizer of a loop-bound object may well use its loop, which no other thread may do.

The trade-off: a loop-bound pool is always on the slow path, and each loop that uses one carries a timer.
"""

import weakref
from collections.abc import AsyncGenerator
from functools import partial
from time import perf_counter
from typing import Any, ClassVar, Protocol

from ._collector import SLICE
from ._loops import innermost_loop, live_loop
from ._shard import Shard


class Resident(Protocol):
    """What a home asks of a pool."""

    def evict(self, home: "Home") -> None:
        """Drop what the pool keeps for `home`."""
        ...


class Home:
    """One loop, from the first use of a loop-bound pool on it to its end."""

    __slots__ = ("_id", "_residents", "closers", "closing", "ended", "guard", "loop", "tie")

    # On the class, because the last loops end after this module's globals were cleared.
    _all: ClassVar[dict[int, "Home"]] = {}

    def __init__(self, running: object) -> None:
        self._id = id(running)
        # Weak, as the collector's registry is.
        self._residents: dict[weakref.ref[Any], None] = {}
        self.loop = live_loop(running)
        self.ended = False
        # For `AsyncPool`, which closes objects shortly before a loop ends: whom to ask, who asks, and whether it did.
        self.closers: dict[weakref.ref[Any], None] = {}
        self.guard: AsyncGenerator[None, None] | None = None
        self.closing = False
        # The home ends when nobody holds its tie any more.
        self.tie: weakref.ref[_Tie] | None = None

    def house(self, pool: Resident) -> None:
        """From now on `pool` keeps something here, and is told when the loop ends."""
        self._residents[weakref.ref(pool, self._residents.__delitem__)] = None

    def end(self) -> None:
        """The loop has ended: nothing of it can be used any more. Never raises; may run in the middle of anything."""
        self.ended = True
        # Should another loop have the id by now, and settle between these two: it settles once more.
        if self._all.get(self._id) is self:
            self._all.pop(self._id, None)
        self.guard = None
        for ref in list(self._residents):
            pool = ref()
            if pool is not None:
                pool.evict(self)


class _Tie:
    """Held by a loop until that ends."""

    __slots__ = ("__weakref__", "_home")

    def __init__(self, home: Home) -> None:
        self._home = home

    def __del__(self) -> None:
        self._home.end()


def current_home() -> Home | None:
    """The home of what is made now: that of the loop that runs on this thread; `None` off-loop."""
    running = innermost_loop()
    if running is None:
        return None
    home = Home._all.get(id(running))
    if home is not None and home.loop.is_loop(running):
        return home
    if home is not None:
        home.end()  # a loop that did not let go of its tie when it ended, and whose id is used again
    new = Home(running)
    # One atomic step: a finalizer that gets here too must not find another home than we do.
    home = Home._all.setdefault(id(running), new)
    if home is new:
        tie = _Tie(home)
        home.tie = weakref.ref(tie)
        # A loop that is ending already does not take it, and so ends the home at once.
        home.loop.hold(tie)
    return home


class Origins:
    """Where each lent object is at home. An object is forgotten when it comes back, or dies.

    Some objects cannot be referenced weakly, such as a tuple of a reader and a writer. When one of them dies while it
    is lent, its entry stays until another lent object has its address. If by then somebody puts an object that was
    made by hand, of that address, on another loop, it will be taken for the dead one and turned down.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any] | None, Home]] = {}

    def lend(self, obj: Any, home: Home) -> None:
        """`obj` goes out, and is at home at `home`."""
        try:
            # The callback is one C call, and runs before the id can be another object's. Its argument, the weak
            # reference, serves as the default of pop.
            ref = weakref.ref(obj, partial(self._entries.pop, id(obj)))
        except TypeError:
            ref = None
        self._entries[id(obj)] = (ref, home)

    def find(self, obj: Any) -> Home | None:
        """Where `obj` is at home; `None`: it was never lent."""
        ref, home = self._entries.get(id(obj), (None, None))
        return home if ref is None or ref() is obj else None

    def forget(self, obj: Any) -> None:
        """`obj` has come back, or never will."""
        self._entries.pop(id(obj), None)


class Departure:
    """A shard that no pool knows any more, whose objects are to be dropped on their own loop.

    To the collector's queue it is a shard like others; only, it posts itself to its loop when its turn comes. A loop
    that ends with it in its queue drops it with all that is in there, which is just as well.
    """

    __slots__ = ("_home", "_shard")

    def __init__(self, home: Home, shard: Shard) -> None:
        self._home = home
        self._shard = shard

    def __len__(self) -> int:
        return len(self._shard)

    def drop_newest(self) -> bool:
        """Have the loop drop all; where that does not run, let go of one shared object. `False`: nothing is left."""
        return not self._home.loop.call_soon(self) and self._shard.drop_newest()

    def __call__(self) -> None:
        shard = self._shard
        deadline = perf_counter() + SLICE
        # This is the owner's thread, so the private ones are ours.
        while shard.take_private() is not None or shard.drop_newest():
            if perf_counter() >= deadline:
                self._home.loop.call_soon(self)
                return


def departures(shards: dict[Any, Shard]) -> list[Departure]:
    """What becomes of a loop-bound pool's `shards` in a cleanup cycle."""
    return [Departure(home, shard) for home, shard in list(shards.items())]
