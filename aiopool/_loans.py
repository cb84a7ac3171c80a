"""Where each object was got last, and where it was put: what the debug mode and the leak check stand on.

While neither is on, nothing here runs. While one is, every get and put is entered here, with the file and the line of
the code that called the pool.

Objects are known by their id, so an entry must not outlive its object, or the next one at that address would inherit
it. Most objects can be referenced weakly, and their entry goes with them. A bytearray, a list, a dict and many objects
of C libraries can't. Their entry holds the object itself, and a sweep looks now and then which of them nothing else
holds any more. The trade-off: these die later than they would, at the next sweep, so that as many dead ones can lie
around as there are living ones. And a part of a reference cycle never looks free. The alternative, going by the id
alone, would take one object for another.

No lock here either: a finalizer can get or put in the middle of any line. An entry changes hands in one C call.
"""

import gc
import sys
import warnings
import weakref
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import getpid
from types import FrameType
from typing import Any, NamedTuple

from ._collector import Collectable


class Place(NamedTuple):
    """A line of the code that calls the pool."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}, in {self.function}"


def caller() -> Place:
    """Where the running code left the user's own for the pool's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_in_between(frame):
        frame = frame.f_back
    if frame is None:
        return Place("<no Python code>", 0, "<unknown>")
    return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)


def _is_in_between(frame: FrameType) -> bool:
    # An ExitStack that enters a borrow is not who borrows.
    return frame.f_globals.get("__package__") == __package__ or frame.f_globals.get("__name__") == "contextlib"


class Entry:
    """What is known of one object."""

    __slots__ = ("_held", "_ref", "got", "lost", "owner", "pool", "pool_name", "process", "put", "thread_id", "what")

    def __init__(self, pool: Collectable, obj: Any) -> None:
        self.pool = weakref.ref(pool)
        self.pool_name = repr(pool)
        self.what = type(obj).__qualname__
        #: where it was got last; `None`: never, as far as was seen
        self.got: Place | None = None
        #: where it was put since; `None`: it is lent
        self.put: Place | None = None
        #: the process and the thread that did so
        self.process = getpid()
        self.thread_id = get_ident()
        #: what `lending_for` was then
        self.owner: object = None
        #: whether it was collected while lent
        self.lost = False
        self._held: Any = None
        self._ref: _Watch | None = None
        try:
            self._ref = _Watch(obj, _gone)
            self._ref.key = id(obj)
        except TypeError:
            self._held = obj

    def __str__(self) -> str:
        return f"{self.what} of {self.pool_name}, got at {self.got}"

    def is_lent(self) -> bool:
        """Whether no put came after the last get."""
        return self.put is None

    def is_about(self, obj: object) -> bool:
        """Whether it is `obj` that this entry knows, and not one that lay at the same address."""
        return (self._held if self._ref is None else self._ref()) is obj

    def references(self) -> int:
        """How many references the object has that it is held by, this one's included."""
        return sys.getrefcount(self._held)


class _Watch(weakref.ref[Any]):
    __slots__ = ("key",)

    key: int


_entries: dict[int, Entry] = {}

lent: dict[Entry, None] = {}
"""What is lent, in the order of the gets."""

lending_for: object = None
"""For whom objects are got at the moment: the pytest plugin tells."""

is_sure: Callable[[Entry], bool] = Entry.is_lent
"""Whether what an entry says is lent really is: the debug mode tells, which may have missed a put."""

keeps_lost = False
"""Whether a lent object that was collected stays in `lent`, for somebody who will look there, instead of a warning."""


@contextmanager
def lending_to(owner: object) -> Iterator[None]:
    """What is got during the block is got for `owner`."""
    global lending_for
    before, lending_for = lending_for, owner
    try:
        yield
    finally:
        lending_for = before


def entry_of(obj: object) -> Entry | None:
    """What is known of `obj`."""
    entry = _entries.get(id(obj))
    return entry if entry is not None and entry.is_about(obj) else None


def got(pool: Collectable, obj: object, place: Place) -> None:
    """`obj` is lent from now on."""
    entry = _enter(pool, obj)
    entry.got = place
    entry.put = None
    entry.owner = lending_for
    lent.pop(entry, None)  # its put was not seen; the order is that of the gets
    lent[entry] = None
    _sweep_if_due(entry)


def came_back(pool: Collectable, obj: object, place: Place) -> None:
    """`obj` is idle from now on."""
    # While the garbage collector runs it may lie dead already for the weak reference, and a finalizer puts it back.
    lent.pop(_entries.get(id(obj), _NOBODYS), None)
    entry = _enter(pool, obj)
    entry.put = place
    _sweep_if_due(entry)


def forget(obj: object) -> None:
    """`obj` is neither lent nor idle any more."""
    lent.pop(_entries.pop(id(obj), _NOBODYS), None)


def forget_all() -> None:
    """Begin anew, knowing nothing."""
    _entries.clear()
    lent.clear()


def _enter(pool: Collectable, obj: object) -> Entry:
    entry = entry_of(obj)
    if entry is None:
        entry = _entries[id(obj)] = Entry(pool, obj)
    else:
        entry.pool = weakref.ref(pool)
        entry.pool_name = repr(pool)
        entry.process = getpid()
        entry.thread_id = get_ident()
    return entry


# --- the end of objects ---

_collecting = False

# What died during the garbage collection that runs: its finalizers are still to come, and one may put it back.
_dead: list[tuple[int, Entry]] = []


def _gone(ref: _Watch) -> None:
    entry = _entries.get(ref.key)
    if entry is None or entry._ref is not ref:
        return
    if _collecting:
        _dead.append((ref.key, entry))
    else:
        _end(ref.key, entry)


def _end(key: int, entry: Entry) -> None:
    if _entries.get(key) is not entry:
        return  # a finalizer put it back
    _entries.pop(key, None)
    if entry not in lent:
        return
    if keeps_lost:
        entry.lost = True
    elif lent.pop(entry, _NOBODYS) is None and entry.process == getpid() and is_sure(entry):
        # In the child of a fork, what the parent lent is the parent's.
        _Obituary(entry)


class _Obituary:
    """Tells of an object that was collected while lent: as it dies itself.

    Then a warning that the filters turn into an error goes to `sys.unraisablehook`, as that of a file that was not
    closed does. Raised, it would hit whoever uses a pool, or runs into a garbage collection, at that moment.
    """

    __slots__ = ("_entry",)

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def __del__(self) -> None:
        entry = self._entry
        warn(f"collected while it was lent: {entry}", entry.got)


_held_before = 0
_entered_since = 0


def _sweep_if_due(entry: Entry) -> None:
    global _entered_since
    if entry._ref is None:
        _entered_since += 1
        if _entered_since > _held_before:
            sweep()


def sweep() -> None:
    """Let go of the objects that nobody else holds any more."""
    global _held_before, _entered_since
    _entered_since = held = 0
    for key in list(_entries):
        entry = _entries.get(key)
        if entry is not None and entry._held is not None:
            if entry.references() <= _ALONE:
                _end(key, entry)
                entry._held = None
            else:
                held += 1
    _held_before = held


def on_gc(phase: str, info: dict[str, int]) -> None:
    """For `gc.callbacks`."""
    global _collecting
    _collecting = phase == "start"
    if not _collecting:
        while _dead:
            _end(*_dead.pop())
        if info["generation"] == 2:
            sweep()


_registry: dict[Any, Any] = {}


def warn(message: str, place: Place | None) -> None:
    """A `ResourceWarning` that shows `place`; where the filters say "default", once for each message."""
    file, line, _ = place or Place("<unknown>", 0, "")
    warnings.warn_explicit(f"aiopool: {message}", ResourceWarning, file, line, registry=_registry)


# What no object has: so that one `pop` finds the entry or nothing, and takes it.
_NOBODYS = Entry.__new__(Entry)


def _count_alone() -> int:
    """How many references there are to an object that only its entry holds. It differs between versions."""
    entry = Entry.__new__(Entry)
    entry._held = bytearray()
    return entry.references()


_ALONE = _count_alone()


def listen() -> None:
    """Hear of garbage collections from now on."""
    if on_gc not in gc.callbacks:
        gc.callbacks.append(on_gc)


def stop_listening() -> None:
    """No more."""
    if on_gc in gc.callbacks:
        gc.callbacks.remove(on_gc)
