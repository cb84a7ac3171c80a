"""Records of where each object was last got and put, for debug mode and the leak check.

If neither is on, nothing here runs. If one is, every get and put is recorded here, with the file and line of the code
that called the pool.

Records are found by the id of their object, so a record must not outlive its object; otherwise the next object at that
address would inherit it. Most objects support weak references, and their record is deleted with them. Bytearrays,
lists, dicts and many objects of C libraries do not. Their record holds the object itself, and a sweep from time to time
finds the objects that nothing else refers to. The trade-off: such objects are freed only at the next sweep, so there
can be as many unused objects as used ones; and an object in a reference cycle never looks unused. The alternative, ids
alone, would mistake one object for another.

There is no lock here either, because a finalizer can get or put between any two bytecodes. Each record is moved in one
C call.
"""

import gc
import sys
import warnings
import weakref
from _thread import get_ident
from collections.abc import Iterator
from contextlib import contextmanager
from os import getpid
from typing import Any

from .._core.place import Place


class Record:
    """The last get and put of one object."""

    __slots__ = ("_held", "_ref", "got", "lost", "owner", "pool", "pool_name", "process", "put", "thread_id", "what")

    def __init__(self, pool: Any, obj: Any) -> None:
        self.pool = weakref.ref(pool)
        self.pool_name = repr(pool)
        self.what = type(obj).__qualname__
        #: where it was last got; `None`: no get was recorded
        self.got: Place | None = None
        #: where it was put after that; `None`: it is checked out
        self.put: Place | None = None
        #: the process and the thread of the last get or put
        self.process = getpid()
        self.thread_id = get_ident()
        #: the value of `getting_for` at the get
        self.owner: object = None
        #: whether it was freed while it was checked out
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

    def is_checked_out(self) -> bool:
        """Whether the object was not put after the last get."""
        return self.put is None

    def is_about(self, obj: object) -> bool:
        """Whether this record is about `obj`, and not about an earlier object at the same address."""
        return (self._held if self._ref is None else self._ref()) is obj

    def references(self) -> int:
        """The reference count of the object that this record holds, including the record's own reference."""
        return sys.getrefcount(self._held)


class _Watch(weakref.ref[Any]):
    __slots__ = ("key",)

    key: int


_records: dict[int, Record] = {}

checked_out: dict[Record, None] = {}
"""Records of the objects that are checked out, in the order of the gets."""

getting_for: object = None
"""The owner of objects that are got now. Set by the pytest plugin."""

keeps_lost = False
"""Whether the record of an object that is freed while checked out stays in `checked_out`, instead of a warning."""


@contextmanager
def getting_on_behalf_of(owner: object) -> Iterator[None]:
    """Objects that are got during the block belong to `owner`."""
    global getting_for
    before, getting_for = getting_for, owner
    try:
        yield
    finally:
        getting_for = before


def record_of(obj: object) -> Record | None:
    """The record of `obj`, if there is one."""
    record = _records.get(id(obj))
    return record if record is not None and record.is_about(obj) else None


def got(pool: Any, obj: object, place: Place) -> None:
    """Record that `obj` is now checked out."""
    record = _enter(pool, obj)
    record.got = place
    record.put = None
    record.owner = getting_for
    checked_out.pop(record, None)  # there if its put was not observed; removed to keep the order of the gets
    checked_out[record] = None
    _sweep_if_due(record)


def came_back(pool: Any, obj: object, place: Place) -> None:
    """Record that `obj` is now idle."""
    # A finalizer may put it during a garbage collection, when its weak reference is already dead.
    checked_out.pop(_records.get(id(obj), _NO_RECORD), None)
    record = _enter(pool, obj)
    record.put = place
    _sweep_if_due(record)


def forget(obj: object) -> None:
    """Delete the record of `obj`, which is neither checked out nor idle any more."""
    checked_out.pop(_records.pop(id(obj), _NO_RECORD), None)


def forget_all() -> None:
    """Delete all records."""
    _records.clear()
    checked_out.clear()


def _enter(pool: Any, obj: object) -> Record:
    record = record_of(obj)
    if record is None:
        record = _records[id(obj)] = Record(pool, obj)
    else:
        record.pool = weakref.ref(pool)
        record.pool_name = repr(pool)
        record.process = getpid()
        record.thread_id = get_ident()
    return record


# --- freed objects ---

_collecting = False

# Garbage found by the running garbage collection. Finalizers that have yet to run may still put these objects.
_dead: list[tuple[int, Record]] = []


def _gone(ref: _Watch) -> None:
    record = _records.get(ref.key)
    if record is None or record._ref is not ref:
        return
    if _collecting:
        _dead.append((ref.key, record))
    else:
        _end(ref.key, record)


def _end(key: int, record: Record) -> None:
    if _records.get(key) is not record:
        return  # a finalizer has put the object
    _records.pop(key, None)
    if record not in checked_out:
        return
    if keeps_lost:
        record.lost = True
    elif checked_out.pop(record, _NO_RECORD) is None and record.process == getpid():
        # (Not in the child of a fork for objects that the parent checked out, because they belong to the parent.)
        _LossReport(record)


class _LossReport:
    """Warns, from its finalizer, about an object that was freed while it was checked out.

    If the filters turn the warning into an error, the error then goes to `sys.unraisablehook`, like that for a file
    that was not closed. Otherwise it would be raised in unrelated code that uses a pool or triggers a collection.
    """

    __slots__ = ("_record",)

    def __init__(self, record: Record) -> None:
        self._record = record

    def __del__(self) -> None:
        record = self._record
        warn(f"collected while it was checked out: {record}", record.got)


_held_before = 0
_recorded_since = 0


def _sweep_if_due(record: Record) -> None:
    global _recorded_since
    if record._ref is None:
        _recorded_since += 1
        if _recorded_since > _held_before:
            sweep()


def sweep() -> None:
    """Drop the objects that nothing else refers to any more."""
    global _held_before, _recorded_since
    _recorded_since = held = 0
    for key in list(_records):
        record = _records.get(key)
        if record is not None and record._held is not None:
            if record.references() <= _ALONE:
                _end(key, record)
                record._held = None
            else:
                held += 1
    _held_before = held


def on_gc(phase: str, info: dict[str, int]) -> None:
    """A callback for `gc.callbacks`."""
    global _collecting
    _collecting = phase == "start"
    if not _collecting:
        while _dead:
            _end(*_dead.pop())
        if info["generation"] == 2:
            sweep()


_registry: dict[Any, Any] = {}


def warn(message: str, place: Place | None) -> None:
    """Emit a `ResourceWarning` that shows `place`; with the filter action "default", once for each message."""
    file, line, _ = place or Place("<unknown>", 0, "")
    warnings.warn_explicit(f"aiopool: {message}", ResourceWarning, file, line, registry=_registry)


# The record of no object. Serves as a default for `pop`, so that a record is found and removed in one step.
_NO_RECORD = Record.__new__(Record)


def _count_alone() -> int:
    """The reference count of an object that only its record holds. It differs between versions of Python."""
    record = Record.__new__(Record)
    record._held = bytearray()
    return record.references()


_ALONE = _count_alone()


def listen() -> None:
    """Start listening to garbage collections."""
    if on_gc not in gc.callbacks:
        gc.callbacks.append(on_gc)


def stop_listening() -> None:
    """Stop listening to garbage collections."""
    if on_gc in gc.callbacks:
        gc.callbacks.remove(on_gc)
