"""What stands behind a view from a `BufferPool`: its storage, and the put that happens when nobody sees it any more.

A buffer must not be used again while anybody can still see it, and only CPython knows who can: a transport that keeps
what it could not send yet, a slice in a log record, a NumPy array, a traceback. So nobody is asked to give a buffer
back. A view is a plain memoryview over an exporter, and CPython releases the exporter when the last view, slice, cast
or array over it has gone. That release is the put.

It is the release of the buffer that counts, and no finalizer. The collector runs the finalizers of a garbage cycle
before it takes the cycle apart, and each of them may still look at the view, or bring it back to life; what is released
can never be seen again. Then it empties the objects of the cycle, in any order, and the exporter of a view may be one
of them. So an exporter here is made of what cannot be emptied: a tuple, and the bytes. (In the compiled twin the
storage is its own exporter, which the collector does not know at all, and its deallocation is the put.)

What is lent does not keep its pool alive. When the pool has gone, with all that lay idle, a view goes on as before, and
what stands behind it is freed in the end.

The price here is two objects for each acquire, and two calls of Python code; and Python code can export buffers from
3.12 on only. On 3.11 views are right all the same, but their storage is not used again.
"""

import sys
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ._implementation import has_gil, native


class Shelf(Protocol):
    """Where storage of one size class lies idle."""

    def put(self, obj: "Storage") -> None:
        """Keep it."""


class Ledger:
    """The idle bytes of one pool, over all its size classes and all loops.

    Many threads write here: exact with a GIL, since no thread switch comes inside a `+=` on an attribute. Without one
    the Python implementation misses some; so the pool counts anew at each cleanup cycle, or the ledger would be full
    one day with nothing idle. The compiled twin counts atomically.
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

    def close(self) -> None:
        """From now on nothing is kept."""
        self.limit = 0


EXACT = native is not None or has_gil()
"""Whether what is counted by many threads is exact."""


class SizeClass:
    """What all storage of one size has in common, and what was done with it. Counted as the ledger is.

    All but what is in use: nothing would ever set that right again. So it is no number that many threads add to, but a
    dict with an entry for each storage that is lent; each change is one C call, atomic with and without a GIL.
    """

    __slots__ = ("__weakref__", "_lent", "asked", "itself", "ledger", "served", "shelf", "wipe")

    def __init__(self, ledger: Ledger, *, wipe: bool) -> None:
        self.ledger = ledger
        self.wipe = wipe
        #: where the storage goes when it comes back; `None`: it is not kept
        self.shelf: Callable[[], Shelf | None] | None = None
        #: what is lent knows its size class by this
        self.itself = weakref.ref(self)
        #: views that were acquired so far
        self.served = 0
        #: bytes that were asked for so far
        self.asked = 0
        # By the id of the content, which is nobody else's while the content lives: its size.
        self._lent: dict[int, int] = {}

    @property
    def in_use(self) -> int:
        """Bytes of storage that somebody may see now."""
        # A copy, made in one C call: other threads lend meanwhile.
        return sum(list(self._lent.values()))

    def note_lent(self, content: bytearray) -> None:
        """Somebody may see `content` from now on."""
        self._lent[id(content)] = len(content)

    def note_back(self, content: bytearray) -> None:
        """Nobody sees `content` any more."""
        self._lent.pop(id(content), None)

    def take_back(self, used: bytearray) -> None:
        """What was lent is seen by nobody any more."""
        self.note_back(used)  # before anybody else can get it, and lend it
        shelf = None if self.shelf is None else self.shelf()
        if shelf is None:
            return
        try:
            storage = Storage(self, len(used), used)
            if self.ledger.admit(len(used)):
                storage.idle = len(used)
                shelf.put(storage)
        except MemoryError:
            pass  # there is none to keep it with: it is dropped, and gives some back


class Storage:
    """Bytes in the pool's own hands: idle, or fresh and zero, or just about to be lent."""

    __slots__ = ("content", "idle", "size_class")

    def __init__(self, size_class: SizeClass, size: int, used: bytearray | None = None) -> None:
        self.size_class = size_class
        #: what the ledger counts for it
        self.idle = 0
        self.content = _Content(size) if used is None else used

    def __del__(self) -> None:
        # Wherever it was dropped. The collector may do this to what a finalizer brings back: so it counts only once.
        self._leave_ledger()

    def _leave_ledger(self) -> None:
        idle, self.idle = self.idle, 0
        self.size_class.ledger.idle -= idle

    def lend(self, n: int) -> memoryview:
        """A view of the first `n` bytes. Once nobody can see them any more they are put back on the shelf, if any.

        For whoever made this or took it from the shelf; who must let go of it now.
        """
        size_class = self.size_class
        self._leave_ledger()
        view = _export(self.content, size_class, n)
        size_class.served += 1
        size_class.asked += n
        return view


if sys.version_info >= (3, 12):
    _Content = bytearray

    _ZEROS = bytes(64 * 1024)

    class _Exporter(tuple[bytearray, "weakref.ref[SizeClass]", int, bool]):
        """Lends storage for as long as any view over it lives."""

        __slots__ = ()

        def __buffer__(self, flags: int) -> memoryview:
            content, known, n, _ = self
            view = memoryview(content)[:n]
            if (size_class := known()) is not None:
                size_class.note_lent(content)
            return view

        def __release_buffer__(
            self, view: memoryview, _is_finalizing: Callable[[], bool] = sys.is_finalizing, _zeros: bytes = _ZEROS
        ) -> None:
            # The view is not touched: where all is garbage the collector may have emptied it already.
            content, known, n, wipe = self
            while wipe and n > 0:
                # In pieces from the end: as many zeros as there are bytes may be more than there is memory for.
                piece = _zeros[:n]
                content[n - piece.__len__() : n] = piece
                n -= piece.__len__()
            # A garbage pool is not known any more before the collector empties it. And while the interpreter goes, the
            # code that puts may be gone already: nobody is there to get anything.
            size_class = known()
            if size_class is not None and not _is_finalizing():
                size_class.take_back(content)

    def _export(content: bytearray, size_class: SizeClass, n: int) -> memoryview:
        return memoryview(_Exporter((content, size_class.itself, n, size_class.wipe)))

else:

    class _Content(bytearray):
        """Bytes that tell when they go, so that the counts are right. Somebody may resize or copy them: `view.obj`."""

        __slots__ = ("_lent",)

        def __new__(cls, size: int) -> "_Content":
            self = super().__new__(cls)
            self._lent = None
            return self

        def lend(self, size_class: SizeClass) -> None:
            self._lent = size_class.itself
            size_class.note_lent(self)

        def __del__(self) -> None:
            known, self._lent = self._lent, None
            if known is not None and (size_class := known()) is not None:
                size_class.note_back(self)

        def __reduce_ex__(self, protocol: object) -> tuple[type, tuple[bytes]]:
            return bytearray, (bytes(self),)

    def _export(content: _Content, size_class: SizeClass, n: int) -> memoryview:
        global _warned
        if not _warned:
            _warned = True
            warnings.warn(
                "Buffers are not used again on Python 3.11 without the compiled part of aiopool, for Python code "
                "cannot export buffers there. Build it (it takes a C compiler), or use Python 3.12 or later.",
                RuntimeWarning,
                stacklevel=5,
            )
        content.lend(size_class)
        return memoryview(content)[:n]

    _warned = False


if not TYPE_CHECKING and native is not None:
    Ledger, SizeClass, Storage = native.Ledger, native.SizeClass, native.Storage
