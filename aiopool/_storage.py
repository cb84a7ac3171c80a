"""What stands behind a view from a `BufferPool`: its storage, and the put that happens when nobody sees it any more.

A buffer must not be used again while anybody can still see it, and only CPython knows who can: a transport that keeps
what it could not send yet, a slice in a log record, a NumPy array, a traceback. So nobody is asked to give a buffer
back. A view is a plain memoryview over an exporter, and CPython releases the exporter when the last view, slice, cast
or array over it has gone. That release is the put.

It is the release of the buffer that counts, and no finalizer. The collector runs the finalizers of a garbage cycle
before it takes the cycle apart, and each of them may still look at the view, or bring it back to life; what is released
can never be seen again. (In the compiled twin the storage is its own exporter, which the collector does not know at
all, and its deallocation is the put.)

The price here is an object for each acquire, and two calls of Python code; and Python code can export buffers from 3.12
on only. On 3.11 views are right all the same, but their storage is not used again.
"""

import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ._implementation import native


class Shelf(Protocol):
    """Where storage of one size class lies idle."""

    def put(self, obj: "Storage") -> None:
        """Keep it."""


class Ledger:
    """The idle bytes of one pool, over all its size classes and all loops.

    Many threads write here: exact with a GIL, since no thread switch comes inside a `+=` on an attribute; without one
    the Python implementation may miss some. The compiled twin counts atomically.
    """

    __slots__ = ("idle", "limit")

    def __init__(self, limit: int) -> None:
        """`limit`: how many bytes may be idle."""
        self.idle = 0
        self.limit = limit

    def admit(self, size: int) -> bool:
        """Count `size` more idle bytes, if there may be so many."""
        # First counted, then looked at: of two threads that both come to the limit, none gets past it.
        self.idle += size
        if self.idle <= self.limit:
            return True
        self.idle -= size
        return False


class SizeClass:
    """What all storage of one size has in common, and what was done with it. Counted as the ledger is."""

    __slots__ = ("asked", "in_use", "ledger", "served", "wipe")

    def __init__(self, ledger: Ledger, *, wipe: bool) -> None:
        self.ledger = ledger
        self.wipe = wipe
        #: views that were acquired so far
        self.served = 0
        #: bytes that were asked for so far
        self.asked = 0
        #: bytes of storage that somebody may see now
        self.in_use = 0


class Storage(bytearray):
    """Bytes that are idle, or lent, or fresh: those are zero."""

    __slots__ = ("idle", "lent", "size_class")

    def __init__(self, size_class: SizeClass, size: int) -> None:
        self.size_class = size_class
        self.idle = False
        self.lent = False
        super().__init__(size)  # last: without memory for it, this dies here, and asks what it was

    def __del__(self) -> None:
        # Only so that the counts are right, wherever it was dropped.
        if self.idle:
            self.size_class.ledger.idle -= len(self)
        elif self.lent:
            self.size_class.in_use -= len(self)

    def lend(self, shelf: Shelf | None, n: int) -> memoryview:
        """A view of the first `n` bytes. Once nobody can see them any more they are put back on the `shelf`, if any.

        For whoever made this or took it from a shelf; who must let go of it now.
        """
        size_class = self.size_class
        if self.idle:
            self.idle = False
            size_class.ledger.idle -= len(self)
        self.lent = True
        size_class.served += 1
        size_class.asked += n
        size_class.in_use += len(self)
        return _export(self, shelf, n)

    def give_back(self, shelf: Shelf | None) -> None:
        """What was lent is seen by nobody any more."""
        size_class = self.size_class
        self.lent = False
        size_class.in_use -= len(self)
        if shelf is not None and size_class.ledger.admit(len(self)):
            self.idle = True
            try:
                shelf.put(self)
            except MemoryError:
                pass  # there is none to keep it with: it is dropped, and gives some back


if sys.version_info >= (3, 12):

    class _Exporter:
        """Lends storage for as long as any view over it lives."""

        __slots__ = ("_length", "_shelf", "_storage")

        def __init__(self, storage: Storage, shelf: Shelf | None, length: int) -> None:
            self._storage = storage
            self._shelf = shelf
            self._length = length

        def __buffer__(self, flags: int) -> memoryview:
            return memoryview(self._storage)[: self._length]

        def __release_buffer__(
            self, view: memoryview, _is_finalizing: Callable[[], bool] = sys.is_finalizing, _bytes: type = bytes
        ) -> None:
            if self._storage.size_class.wipe:
                view[:] = _bytes(len(view))
            view.release()
            # While the interpreter goes, the code that puts may be gone already. Nobody is there to get anything.
            self._storage.give_back(None if _is_finalizing() else self._shelf)

    def _export(storage: Storage, shelf: Shelf | None, n: int) -> memoryview:
        return memoryview(_Exporter(storage, shelf, n))

else:

    def _export(storage: Storage, shelf: Shelf | None, n: int) -> memoryview:
        global _warned
        if not _warned:
            _warned = True
            warnings.warn(
                "Buffers are not used again on Python 3.11 without the compiled part of aiopool, for Python code "
                "cannot export buffers there. Build it (it takes a C compiler), or use Python 3.12 or later.",
                RuntimeWarning,
                stacklevel=5,
            )
        return memoryview(storage)[:n]

    _warned = False


if not TYPE_CHECKING and native is not None:
    Ledger, SizeClass, Storage = native.Ledger, native.SizeClass, native.Storage
