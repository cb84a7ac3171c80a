"""The block behind a view from a `BufferPool`, and the put that happens when the last view is gone.

A buffer must not be reused while it is still referenced, and only CPython knows all references: a transport that keeps
data that it could not send yet, a slice in a log record, a NumPy array, a traceback. So the user puts nothing back. A
view is a plain memoryview over an exporter, and CPython releases the exporter's buffer when the last view, slice, cast
or array over it is gone. That release is the put.

The put is the release of the buffer, not a finalizer. The garbage collector runs the finalizers of a reference cycle
before it breaks the cycle, and any of them may still use the view, or resurrect it; a released buffer can never be seen
again. After that, the collector clears the objects of the cycle in any order, and the exporter of a view may be one of
them. So an exporter here consists of objects that cannot be cleared: a tuple, and the bytes. (In the C extension a
block is its own exporter, which the collector does not track, and its deallocation is the put.)

There is one exception: `numpy.ndarray(buffer=view)` releases the buffer at once, but keeps its address and `view.obj`,
which is the wrapper that CPython puts between an exporter in Python and its views. So each release checks the wrapper's
reference count. While something else refers to the wrapper, the bytes are neither reused nor freed.

A view does not keep its pool alive. When the pool is freed, with all its idle blocks, its views stay valid, and each
block is freed with its last view.

In Python each acquire costs two objects and two calls of Python code, and Python code can export buffers only from 3.12
on. On 3.11 views behave correctly too, but their blocks are not reused.
"""

import sys
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from . import gc_clock
from .idle_budget import IdleBudget


class TakesBack(Protocol):
    """The interface of a size class that blocks use."""

    displaced: int

    def note_checked_out(self, content: "Content") -> None:
        """Count `content` as checked out, because a view over it exists now."""

    def note_back(self, content: "Content") -> None:
        """Count `content` as no longer checked out, because no view over it exists any more."""

    def take_back(self, content: "Content") -> None:
        """Keep `content`, over which no view exists any more, if there is room."""


SizeClassRef = Callable[[], TakesBack | None]


class Content(bytearray):
    """The bytes of a block. On 3.11 a user may resize or copy them, because they are the `obj` of a view.

    A finalizer tells the size class when they are freed. If there is no memory to call the release method, CPython
    frees an exporter without it, and its bytes would be counted as checked out forever. In a garbage cycle the
    finalizer runs before the release, and a view that is resurrected afterwards is no longer counted.
    """

    __slots__ = ()

    _size_classes: ClassVar[dict[int, SizeClassRef]] = {}

    def belong_to(self, size_class: SizeClassRef) -> None:
        """Record that this will be checked out of `size_class` and no other."""
        self._size_classes[id(self)] = size_class

    def __del__(self) -> None:
        try:
            self._note_freed()
        except MemoryError:
            self._note_freed()  # nothing was done, because there was no memory for the id, and nothing else will do it

    def _note_freed(self, _known: dict[int, SizeClassRef] = _size_classes) -> None:
        known = _known.get(id(self))
        if known is not None and (size_class := known()) is not None:
            size_class.note_back(self)
        _known.pop(id(self), None)

    def __reduce_ex__(self, protocol: object) -> tuple[type, tuple[bytes]]:
        return bytearray, (bytes(self),)

    def __repr__(self) -> str:
        """Leaves out the bytes, which may be a user's request."""
        return f"<{len(self)} bytes of aiopool.BufferPool at {hex(id(self))}>"

    __str__ = __repr__


class Block:
    """Bytes that only the pool uses: idle, or newly created and zero, or just about to be checked out."""

    __slots__ = ("_budget", "_size_class", "content", "idle_since", "size")

    def __init__(self, content: Content) -> None:
        # Set while idle: the budget where its bytes are reserved, and its size class.
        self._budget: IdleBudget | None = None
        self._size_class: SizeClassRef | None = None
        #: while idle: its size in bytes, and since when it is idle, as a value of the budget's `now`
        self.size = 0
        self.idle_since = 0
        self.content = content

    def enter_budget(self, budget: IdleBudget, size: int, size_class: SizeClassRef) -> None:
        """Record that its `size` bytes are reserved in `budget`, for a block of `size_class`."""
        self.size = size  # stored, because even `len` may need memory
        self.idle_since = budget.now
        self._size_class = size_class
        self._budget = budget

    def displace(self) -> None:
        """Free its bytes, to make room for another block. It was already removed from its store."""
        if self._size_class is not None and (known := self._size_class()) is not None:
            known.displaced += 1
        # Here and not in the finalizer: without a GIL, another thread may have to run that.
        del self.content
        self.leave_budget()

    def leave_budget(self) -> None:
        """Give its bytes back to the budget, because it is no longer idle."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.give_back(self.size)

    def __del__(self) -> None:
        # Wherever it was dropped. The collector may run this on a block that another finalizer resurrects, so
        # `leave_budget` gives the bytes back only once.
        self.leave_budget()


if sys.version_info >= (3, 12):
    _ZEROS = bytes(64 * 1024)

    # The wrappers of all exporters, by the id of their content.
    _wrappers: dict[int, object] = {}

    # The wrappers that outlived the release, each with the bytes whose address may still be in use.
    _outlived: list[tuple[object, Content]] = []

    def _references_at_release() -> int:
        """The reference count of a wrapper during a release if nothing else refers to it. CPython versions differ."""
        wrappers: dict[int, object] = {}
        counts: list[int] = []

        class Probe:
            def __buffer__(self, flags: int) -> memoryview:
                return memoryview(b"")

            def __release_buffer__(self, view: memoryview) -> None:
                wrapper = wrappers.pop(0, None)
                counts.append(sys.getrefcount(wrapper))

        view = memoryview(Probe())
        wrappers[0] = view.obj
        del view
        return counts[0]

    def _references_in_pairs(pairs: list[tuple[object, Any]]) -> list[int]:
        return [sys.getrefcount(wrapper) for wrapper, _ in pairs]

    _ALONE = _references_at_release()
    (_ALONE_IN_PAIR,) = _references_in_pairs([(object(), None)])

    def _free_outlived() -> None:
        """Free the bytes that are no longer in use. Called before each acquire and after each garbage collection."""
        if not _outlived:
            return
        for pair, references in zip(pairs := _outlived.copy(), _references_in_pairs(pairs), strict=True):
            if references <= _ALONE_IN_PAIR:
                try:
                    _outlived.remove(pair)
                except ValueError:
                    pass  # another thread removed it

    gc_clock.on_stop.append(_free_outlived)

    class _Exporter(tuple[Content, SizeClassRef, int, bool]):
        """Keeps a block checked out as long as any view over it lives."""

        __slots__ = ()

        def __repr__(self) -> str:
            """Leaves out the bytes."""
            return f"<exporter of {self[0]!r}>"

        def __buffer__(self, flags: int) -> memoryview:
            content, _, n, _ = self
            return memoryview(content)[:n]

        def __release_buffer__(
            self,
            view: memoryview,
            _is_finalizing: Callable[[], bool] = sys.is_finalizing,
            _zeros: bytes = _ZEROS,
            _known_wrappers: dict[int, object] = _wrappers,
            _outlives: Callable[[tuple[object, Content]], None] = _outlived.append,
            _references: Callable[[object], int] = sys.getrefcount,
            _alone: int = _ALONE,
        ) -> None:
            # The view is not touched, because the collector may already have cleared it, if it is garbage too.
            content, known, n, wipe = self
            wrapper = _known_wrappers.pop(id(content), None)
            if _references(wrapper) > _alone and wrapper is not None:
                _outlives((wrapper, content))
                return
            while wipe and n > 0:
                # In pieces, from the end, because there may be no memory for as many zeros as there are bytes.
                piece = _zeros[:n]
                content[n - piece.__len__() : n] = piece
                n -= piece.__len__()
            # If the pool is garbage, its weak reference is dead before the collector clears the pool. During
            # interpreter shutdown, the code that puts may be gone already, and nothing will be acquired any more.
            size_class = known()
            if size_class is not None and not _is_finalizing():
                size_class.take_back(content)

    def export(content: Content, size_class: SizeClassRef, n: int, wipe: bool) -> memoryview:
        """Return a view of the first `n` bytes of `content`, which `size_class` takes back after the last view."""
        _free_outlived()
        view = memoryview(_Exporter((content, size_class, n, wipe)))
        _wrappers[id(content)] = view.obj
        # Only now, when the release is certain: if creating the view runs out of memory, CPython does not call it.
        if (known := size_class()) is not None:
            known.note_checked_out(content)
        return view

else:

    class _Warning:
        """Warns from its finalizer. A filter that turns the warning into an error then only has it printed, and the
        connection that acquires the first buffer is not lost.
        """

        __slots__ = ()

        def __del__(self) -> None:
            warnings.warn(
                "Buffers are not reused on Python 3.11 without the C extension of aiopool, because Python code "
                "cannot export buffers there. Build it (this needs a C compiler), or use Python 3.12 or later.",
                RuntimeWarning,
                stacklevel=6,
            )

    def export(content: Content, size_class: SizeClassRef, n: int, wipe: bool) -> memoryview:
        """Return a view of the first `n` bytes of `content`, which is not reused."""
        global _warned
        if not _warned:
            _warned = True
            _Warning()
        if (known := size_class()) is not None:
            known.note_checked_out(content)
        return memoryview(content)[:n]

    _warned = False
