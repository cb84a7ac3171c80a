"""The record that loop-bound stores keep for each loop, from their first use on it until it ends.

A processor cannot serve as the identity of a loop. A thread that runs several loops in turn keeps its processor, and a
loop may be run by one thread now and by another later. So each loop has its own record.

Only the loop holds the record; everything else refers to it weakly. An idle object usually refers to its loop, so the
loop, its record and its idle objects are one reference cycle. It is freed when nothing else refers to the loop, even if
that was never closed. A loop that is closed drops the objects it holds, which tells the record that the loop has ended.

Only a `Mark` outlives the loop: it says which loop a checked-out object is bound to.
"""

import sys
import weakref
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, ClassVar

from .departures import Departures
from .loops import TRIO, LiveLoop, get_running_loop, innermost_loop, live_loop
from .shard import Shard


class Mark:
    """One loop's identity, and whether it has ended. It refers to nothing."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended = False


class Part:
    """One store's shards for one loop, one for each generation. Only code on that loop touches them."""

    __slots__ = ("_contents", "shards")

    def __init__(self, contents: "weakref.ref[Any]") -> None:
        self._contents = contents
        self.shards: dict[int, Shard] = {}

    def forget(self) -> None:
        """Begin a new generation, so that no processor remembers a shard of this part, which is about to be freed."""
        contents = self._contents()
        if contents is not None:
            contents.begin()

    def __len__(self) -> int:
        return sum(map(len, list(self.shards.values())))


class LoopRecord:
    """One loop and its idle objects."""

    __slots__ = (
        "__weakref__",
        "_id",
        "closers",
        "closing",
        "departures",
        "guard",
        "loop",
        "mark",
        "parts",
        "running",
        "tie",
    )

    # On the class, because the last loops end after this module's globals are cleared.
    _all: ClassVar[dict[int, "weakref.ref[LoopRecord]"]] = {}

    def __init__(self, running: object) -> None:
        self._id = id(running)
        self.mark = Mark()
        self.loop: LiveLoop = live_loop(running)
        #: what was retired and is to be freed on the loop
        self.departures = Departures(self.loop)
        #: a weak reference to the loop, as `running_loop` returns it; each get and put compares it
        self.running = weakref.ref(running)
        #: by the id of a store's contents
        self.parts: dict[int, Part] = {}
        #: for `AsyncPool`, which closes objects shortly before a loop ends: the pools, the async generator that waits
        #: for the end, and whether closing has begun
        self.closers: dict[int, weakref.ref[Any]] = {}
        self.guard: AsyncGenerator[None, None] | None = None
        self.closing = False
        #: held by the loop until it ends
        self.tie: weakref.ref[_Tie] | None = None

    def part(self, contents: Any) -> Part:
        """The part for `contents`, which exists until `contents` are freed or the loop ends."""
        key = id(contents)
        part = self.parts.get(key)
        if part is None:
            # The callback is one C call, because it can run between any two bytecodes.
            part = self.parts.setdefault(key, Part(weakref.ref(contents, partial(self.parts.pop, key))))
        return part

    def end(self) -> None:
        """Free the objects of the loop, which has ended. Never raises; may run between any two bytecodes."""
        self.mark.ended = True
        ref = self._all.get(self._id)
        # The collector clears weak references before it runs finalizers, so a dead reference may be ours. If it belongs
        # to a new loop with the same id, which stored its record between these two lines, that loop just creates
        # another record.
        if ref is not None and ref() in (self, None):
            self._all.pop(self._id, None)
        self.guard = None
        # Removed first, and freed when this method returns, because a finalizer may call it again.
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
        record = getattr(self, "_record", None)  # missing if an exception interrupted __init__
        if record is not None:
            record.end()


def current_record() -> LoopRecord | None:
    """The record of the loop that runs on this thread; `None` off-loop."""
    # Without trio this is the same, and saves a call: each get and each put comes here several times.
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
    """Remove the record under the id of `running`, which belongs to another loop."""
    if stale is None:
        # The record was freed without `end`, because an exception came before its loop held it. `setdefault` would not
        # replace the entry.
        LoopRecord._all.pop(id(running), None)
    else:
        stale.end()  # its loop did not drop the record when it ended, and the id was reused


def _new_record(running: object) -> LoopRecord | None:
    record = LoopRecord(running)
    # One atomic step, so that a finalizer that got here too finds the same record.
    known = LoopRecord._all.setdefault(id(running), weakref.ref(record))()
    if known is not record:
        return known
    tie = _Tie(record)
    record.tie = weakref.ref(tie)
    # A loop that is already ending does not hold the tie, which ends the record at once.
    record.loop.hold(tie)
    return record


def records() -> list[LoopRecord]:
    """The records of all loops that have not ended."""
    return [record for ref in list(LoopRecord._all.values()) if (record := ref()) is not None]


class Bindings:
    """The loop that each object is bound to. The binding is removed when the object is freed.

    Some objects do not support weak references, such as a tuple of a reader and a writer. Their bindings are removed
    when they are put. If such an object is freed while it is checked out, its binding stays until another object at the
    same address is checked out. If an object that was created elsewhere has that address and is put on another loop, it
    is mistaken for the freed one and rejected.
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: dict[int, tuple["weakref.ref[Any] | None", Mark]]) -> None:
        """`entries` is empty at first; the C extension reads it too."""
        self._entries = entries

    def bind(self, obj: Any, mark: Mark) -> None:
        """Bind `obj`, which is checked out, to the loop of `mark`."""
        known = self._entries.get(id(obj))
        if known is not None and known[0] is not None and known[1] is mark and known[0]() is obj:
            return
        ref: weakref.ref[Any] | None = None
        # Asked before, because trying costs more than all the rest of a get.
        if type(obj).__weakrefoffset__:
            # The callback is one C call, and runs before another object can have the same id. Its argument, the weak
            # reference, serves as the default of pop.
            ref = weakref.ref(obj, partial(self._entries.pop, id(obj)))
        self._entries[id(obj)] = (ref, mark)

    def find(self, obj: Any) -> Mark | None:
        """The mark of the loop that `obj` is bound to; `None` if it was never checked out."""
        ref, mark = self._entries.get(id(obj), (None, None))
        return mark if ref is None or ref() is obj else None

    def came_back(self, obj: Any) -> None:
        """Note that `obj` was put. Its binding stays, unless `obj` does not support weak references."""
        ref, _ = self._entries.get(id(obj), (None, None))
        if ref is None:
            self._entries.pop(id(obj), None)

    def forget(self, obj: Any) -> None:
        """Remove the binding of `obj`, which will not be checked out again."""
        self._entries.pop(id(obj), None)
