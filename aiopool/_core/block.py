"""What stands behind a view from a `BufferPool`: its block, and the put that happens when no view is left.

A buffer must not be reused while it is still referenced, and only CPython knows by what: a transport that keeps what
it could not send yet, a slice in a log record, a NumPy array, a traceback. So nothing has to be given back. A view is
a plain memoryview over an exporter, and CPython releases the exporter when the last view, slice, cast or array over it
has gone. That release is the put.

The release of the buffer counts, and no finalizer. The collector runs the finalizers of a garbage cycle
before it takes the cycle apart, and each of them may still look at the view, or bring it back to life; what is released
can never be seen again. Then it empties the objects of the cycle, in any order, and the exporter of a view may be one
of them. So an exporter here is made of what cannot be emptied: a tuple, and the bytes. (In the C extension a
block is its own exporter, which the collector does not know at all, and its deallocation is the put.)

One thing outlives the release: `numpy.ndarray(buffer=view)` releases the buffer at once, and keeps an address and
`view.obj`. That is the wrapper that CPython puts between an exporter in Python and its views. So each release counts
the references to the wrapper. If something refers to it, the bytes are neither reused nor freed before that has gone.

What is checked out does not keep its pool alive. When the pool has gone, with all its idle blocks, a view goes on as
before, and its block is freed in the end.

The price in Python is two objects for each acquire, and two calls of Python code; and Python code can export buffers
from 3.12 on only. On 3.11 views are right all the same, but their blocks are not reused.
"""

import sys
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from . import gc_clock
from .idle_budget import IdleBudget


class TakesBack(Protocol):
    """What a block asks of its size class."""

    displaced: int

    def note_checked_out(self, content: "Content") -> None:
        """A view over `content` exists, from now on."""

    def note_back(self, content: "Content") -> None:
        """No view over `content` exists any more."""

    def take_back(self, content: "Content") -> None:
        """No view over `content` exists any more: keep it, if there is room."""


SizeClassRef = Callable[[], TakesBack | None]


class Content(bytearray):
    """The bytes of a block. On 3.11 a user may resize or copy them: they are the `obj` of a view.

    They tell when they are freed. Where there is no memory to call a release, CPython frees an exporter without it, and
    its bytes would be counted as checked out for good. In a garbage cycle they tell before the release, and if somebody
    brings the view back to life, it is not counted any more.
    """

    __slots__ = ()

    _size_classes: ClassVar[dict[int, SizeClassRef]] = {}

    def belong_to(self, size_class: SizeClassRef) -> None:
        """It will be checked out of `size_class`, and of no other."""
        self._size_classes[id(self)] = size_class

    def __del__(self) -> None:
        try:
            self._note_freed()
        except MemoryError:
            self._note_freed()  # nothing was done, for there was no memory for its id; and nothing else will do it

    def _note_freed(self, _known: dict[int, SizeClassRef] = _size_classes) -> None:
        known = _known.get(id(self))
        if known is not None and (size_class := known()) is not None:
            size_class.note_back(self)
        _known.pop(id(self), None)

    def __reduce_ex__(self, protocol: object) -> tuple[type, tuple[bytes]]:
        return bytearray, (bytes(self),)

    def __repr__(self) -> str:
        """Without what it contains, which may be anyone's."""
        return f"<{len(self)} bytes of aiopool.BufferPool at {hex(id(self))}>"

    __str__ = __repr__


class Block:
    """Bytes in the pool's own hands: idle, or fresh and zero, or just about to be checked out."""

    __slots__ = ("_budget", "_size_class", "content", "idle_since", "size")

    def __init__(self, content: Content) -> None:
        # Set while idle: where its bytes are reserved, and by whom.
        self._budget: IdleBudget | None = None
        self._size_class: SizeClassRef | None = None
        #: as long as it is idle: how many bytes it has, and since when, in the budget's terms
        self.size = 0
        self.idle_since = 0
        self.content = content

    def enter_budget(self, budget: IdleBudget, size: int, size_class: SizeClassRef) -> None:
        """Its `size` bytes are reserved there, for a block of `size_class`."""
        self.size = size  # kept, since even to ask for the length takes memory
        self.idle_since = budget.now
        self._size_class = size_class
        self._budget = budget

    def displace(self) -> None:
        """It is out of its store, and makes room for another."""
        if self._size_class is not None and (known := self._size_class()) is not None:
            known.displaced += 1
        # Here and not as it dies: without a GIL another thread may have to see to that.
        del self.content
        self.leave_budget()

    def leave_budget(self) -> None:
        """It is idle no more."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.give_back(self.size)

    def __del__(self) -> None:
        # Wherever it was dropped. The collector may do this to what a finalizer brings back: so it counts only once.
        self.leave_budget()


if sys.version_info >= (3, 12):
    _ZEROS = bytes(64 * 1024)

    # By the id of their content: the wrappers of all exporters.
    _wrappers: dict[int, object] = {}

    # The wrappers that outlived the release, each with the bytes that something may still address.
    _outlived: list[tuple[object, Content]] = []

    def _references_at_release() -> int:
        """How many references to a wrapper a release counts if there are no others: CPython's versions differ."""
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
        """Let go of the bytes that nothing addresses any more. Called before an acquire, and by each collection."""
        if not _outlived:
            return
        for pair, references in zip(pairs := _outlived.copy(), _references_in_pairs(pairs), strict=True):
            if references <= _ALONE_IN_PAIR:
                try:
                    _outlived.remove(pair)
                except ValueError:
                    pass  # another thread was here

    gc_clock.on_stop.append(_free_outlived)

    class _Exporter(tuple[Content, SizeClassRef, int, bool]):
        """Checks a block out for as long as any view over it lives."""

        __slots__ = ()

        def __repr__(self) -> str:
            """Without what it contains."""
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
            # The view is not touched: where all is garbage the collector may have emptied it already.
            content, known, n, wipe = self
            wrapper = _known_wrappers.pop(id(content), None)
            if _references(wrapper) > _alone and wrapper is not None:
                _outlives((wrapper, content))
                return
            while wipe and n > 0:
                # In pieces from the end: as many zeros as there are bytes may be more than there is memory for.
                piece = _zeros[:n]
                content[n - piece.__len__() : n] = piece
                n -= piece.__len__()
            # A garbage pool is not known any more before the collector empties it. And while the interpreter goes, the
            # code that puts may be gone already, and nothing will get anything.
            size_class = known()
            if size_class is not None and not _is_finalizing():
                size_class.take_back(content)

    def export(content: Content, size_class: SizeClassRef, n: int, wipe: bool) -> memoryview:
        """A view of the first `n` bytes of `content`. When the last view is gone, `size_class` takes it back."""
        _free_outlived()
        view = memoryview(_Exporter((content, size_class, n, wipe)))
        _wrappers[id(content)] = view.obj
        # Only now, when the release is certain: where memory runs out halfway CPython does not call it.
        if (known := size_class()) is not None:
            known.note_checked_out(content)
        return view

else:

    class _Warning:
        """Warns as it dies itself. Then a filter that makes an error of it has it printed, and no connection is lost in
        which the first buffer is acquired.
        """

        __slots__ = ()

        def __del__(self) -> None:
            warnings.warn(
                "Buffers are not reused on Python 3.11 without the C extension of aiopool, because Python code "
                "cannot export buffers there. Build it (it takes a C compiler), or use Python 3.12 or later.",
                RuntimeWarning,
                stacklevel=6,
            )

    def export(content: Content, size_class: SizeClassRef, n: int, wipe: bool) -> memoryview:
        """A view of the first `n` bytes of `content`, which is not reused."""
        global _warned
        if not _warned:
            _warned = True
            _Warning()
        if (known := size_class()) is not None:
            known.note_checked_out(content)
        return memoryview(content)[:n]

    _warned = False
