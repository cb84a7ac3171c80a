"""What loop-bound stores keep for one loop, from their first use on it until it ends.

A processor will not do as the identity of a loop. A thread that runs loop after loop keeps its processor, and a loop
may be run by one thread now and by another later. So each loop has a record of its own.

The loop itself holds the record, and everything else refers to it weakly. An idle object usually refers to its loop;
so what is idle for a loop, the record, and the loop are one reference cycle, which goes when nothing else refers to
the loop, whether it was ever closed or not. When it is closed, it lets go of what it holds, and that is how the record
hears of the end.

A `Mark` is all that outlives the loop: by it, a checked-out object knows the loop it is bound to.
"""

import sys
import weakref
from collections.abc import AsyncGenerator
from functools import partial
from time import perf_counter
from typing import Any, ClassVar

from .freeing import SLICE, free_each
from .loops import TRIO, LiveLoop, get_running_loop, innermost_loop, live_loop
from .shard import Shard


class Mark:
    """One loop's identity, and whether it has ended. Refers to nothing."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended = False


class Part:
    """What one store's contents keep for one loop: a shard for each generation. Touched on that loop only."""

    __slots__ = ("_contents", "shards")

    def __init__(self, contents: "weakref.ref[Any]") -> None:
        self._contents = contents
        self.shards: dict[int, Shard] = {}

    def forget(self) -> None:
        """The shards go: no processor may remember one."""
        contents = self._contents()
        if contents is not None:
            contents.begin()

    def __len__(self) -> int:
        return sum(map(len, list(self.shards.values())))


class LoopRecord:
    """One loop, and what is idle for it."""

    __slots__ = ("__weakref__", "_id", "closers", "closing", "guard", "loop", "mark", "parts", "running", "tie")

    # On the class, because the last loops end after this module's globals were cleared.
    _all: ClassVar[dict[int, "weakref.ref[LoopRecord]"]] = {}

    def __init__(self, running: object) -> None:
        self._id = id(running)
        self.mark = Mark()
        self.loop: LiveLoop = live_loop(running)
        #: the same loop as `running_loop` gave it, weakly: each get and put compares it
        self.running = weakref.ref(running)
        #: by the id of a store's contents
        self.parts: dict[int, Part] = {}
        #: for `AsyncPool`, which closes objects shortly before a loop ends: the pools, the guard that waits for the
        #: end, and whether the end has come
        self.closers: dict[int, weakref.ref[Any]] = {}
        self.guard: AsyncGenerator[None, None] | None = None
        self.closing = False
        #: held by the loop until it ends
        self.tie: weakref.ref[_Tie] | None = None

    def part(self, contents: Any) -> Part:
        """What is kept here for `contents`, until those die or the loop ends."""
        key = id(contents)
        part = self.parts.get(key)
        if part is None:
            # The callback is one C call, because it can run in the middle of anything.
            part = self.parts.setdefault(key, Part(weakref.ref(contents, partial(self.parts.pop, key))))
        return part

    def end(self) -> None:
        """The loop has ended: nothing of it can be used any more. Never raises; may run in the middle of anything."""
        self.mark.ended = True
        ref = self._all.get(self._id)
        # The collector clears weak references before it runs finalizers, so a dead one may be ours. Another loop may
        # have the id by now, and make its record between these two lines: it makes it once more.
        if ref is not None and ref() in (self, None):
            self._all.pop(self._id, None)
        self.guard = None
        # Taken out first, and freed when this returns: a finalizer may come back here.
        gone = list(self.parts.values())
        self.parts.clear()
        for part in gone:
            part.forget()


class _Tie:
    """Held by a loop until it ends."""

    __slots__ = ("__weakref__", "_record")

    def __init__(self, record: LoopRecord) -> None:
        self._record = record

    def __del__(self) -> None:
        record = getattr(self, "_record", None)  # not there if an exception broke it off in the making
        if record is not None:
            record.end()


def current_record() -> LoopRecord | None:
    """The record of the loop that runs on this thread; `None` off-loop."""
    running = innermost_loop() if TRIO in sys.modules else get_running_loop()
    if running is None:
        return None
    ref = LoopRecord._all.get(id(running))
    if ref is not None:
        known = ref()
        if known is not None and known.running() is running:
            return known
        _forget(running, known)
    return _new_record(running)


def _forget(running: object, stale: LoopRecord | None) -> None:
    """What is known under the id of `running` is of another loop."""
    if stale is None:
        # It died without an end: an exception came before it was tied to its loop. No new one can take its place.
        LoopRecord._all.pop(id(running), None)
    else:
        stale.end()  # its loop did not let go of its record when it ended, and the id is reused


def _new_record(running: object) -> LoopRecord | None:
    record = LoopRecord(running)
    # One atomic step: a finalizer that got here too must find the same record as we do.
    known = LoopRecord._all.setdefault(id(running), weakref.ref(record))()
    if known is not record:
        return known
    tie = _Tie(record)
    record.tie = weakref.ref(tie)
    # A loop that is ending already does not take it, and so ends the record at once.
    record.loop.hold(tie)
    return record


def records() -> list[LoopRecord]:
    """The records of all loops that have not ended."""
    return [record for ref in list(LoopRecord._all.values()) if (record := ref()) is not None]


class Bindings:
    """Which loop each object is bound to. An object is forgotten when it dies.

    Some objects cannot be referenced weakly, such as a tuple of a reader and a writer. They are forgotten when they
    come back. When one of them dies while it is checked out, its entry stays until another one has its address. If by
    then an object of that address that was created elsewhere is put on another loop, it is taken for the dead one and
    rejected.
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: dict[int, tuple["weakref.ref[Any] | None", Mark]]) -> None:
        """`entries` is empty; the C extension looks at it too."""
        self._entries = entries

    def bind(self, obj: Any, mark: Mark) -> None:
        """`obj` is checked out, and bound to the loop of `mark`."""
        known = self._entries.get(id(obj))
        if known is not None and known[0] is not None and known[1] is mark and known[0]() is obj:
            return
        try:
            # The callback is one C call, and runs before the id can be another object's. Its argument, the weak
            # reference, serves as the default of pop.
            ref = weakref.ref(obj, partial(self._entries.pop, id(obj)))
        except TypeError:
            ref = None
        self._entries[id(obj)] = (ref, mark)

    def find(self, obj: Any) -> Mark | None:
        """The loop that `obj` is bound to; `None`: it was never checked out."""
        ref, mark = self._entries.get(id(obj), (None, None))
        return mark if ref is None or ref() is obj else None

    def came_back(self, obj: Any) -> None:
        """`obj` is idle: as long as it lives, it stays bound to its loop."""
        ref, _ = self._entries.get(id(obj), (None, None))
        if ref is None:
            self._entries.pop(id(obj), None)

    def forget(self, obj: Any) -> None:
        """`obj` will never come back."""
        self._entries.pop(id(obj), None)


class Departure:
    """A retired shard whose objects are to be freed on their own loop.

    To the queue of retired objects it is a shard like others; only, it posts itself to its loop when its turn comes. A
    loop that ends with it in its queue drops it with all that is in there, which is just as well.
    """

    __slots__ = ("_loop", "_shard")

    def __init__(self, loop: LiveLoop, shard: Shard) -> None:
        self._loop = loop
        self._shard = shard

    def __len__(self) -> int:
        return len(self._shard)

    def free_newest(self) -> bool:
        """Have the loop free all; where it is not running, let go of one shared object. `False`: nothing is left."""
        return not self._loop.call_soon(self) and self._shard.free_newest()

    def __call__(self) -> None:
        if not free_each(self._free_any, perf_counter() + SLICE):
            self._loop.call_soon(self)

    def _free_any(self) -> bool:
        # This is the owner's thread, so the private ones are ours.
        return self._shard.take_private() is not None or self._shard.free_newest()
