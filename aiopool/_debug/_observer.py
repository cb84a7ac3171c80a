"""The observer of debug mode, which records each get and put and checks it for mistakes.

A certain mistake (putting an object that is already idle) raises. Something that may be intended, or is found where no
caller could catch an exception, is reported by a `ResourceWarning`. Both messages name the two conflicting places.
"""

import weakref
from os import getpid
from typing import Any

from .._core.place import caller
from . import _findings, _records


class Recorder:
    """The observer. If it raises, the exception reaches the caller of the pool, and the object stays where it was."""

    def __init__(self) -> None:
        # The pools created since debug mode was switched on, all of whose gets and puts were observed.
        self._newer: weakref.WeakSet[Any] = weakref.WeakSet()

    def forget_all(self) -> None:
        """Forget all pools."""
        self._newer.clear()

    def created(self, pool: Any) -> None:
        """`pool` was created."""
        self._newer.add(pool)

    def got(self, pool: Any, obj: Any) -> None:
        """`obj` is now checked out."""
        if obj is None:
            return
        place = caller()
        record = _records.record_of(obj)
        if record is not None and record.put is not None:
            try:
                if pool in self._newer:
                    _findings.check_the_only_one(obj, record, place)
                _findings.check_not_shared_over_fork(obj, record, record.put, place)
            except BaseException:
                # The pool keeps the object idle. Reported only once; otherwise no get would ever succeed again.
                record.got, record.process = place, getpid()
                raise
        _records.got(pool, obj, place)

    def putting(self, pool: Any, obj: Any) -> None:
        """`obj` is about to be put."""
        place = caller()
        _findings.check_put(obj, place)
        # Before the put, because afterwards another thread may have got the object.
        _records.came_back(pool, obj, place)

    def not_kept(self, pool: Any, obj: Any) -> None:
        """Delete the record of `obj`, which is neither checked out nor idle any more."""
        _records.forget(obj)
