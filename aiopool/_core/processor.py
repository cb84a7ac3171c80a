"""Which event-loop thread am I? A processor is the answer: a small dense id that one live thread owns.

Go asks its scheduler (`runtime_procPin`). Python has nothing to ask, so a processor is bound in a `ContextVar`, and
every task of the loop inherits it. But contexts travel: into `asyncio.to_thread`, into coroutines sent to other loops,
on free-threaded builds into every new thread. A binding is therefore a hint that is checked on every use: it holds
only in the thread that owns the processor. Where it does not hold, `pin` finds the thread's own processor and binds
that one. So a context that travels costs a look-up and harms nothing.

Comparing thread idents is sound because a processor is released when its thread ends. Idents are reused at once, and a
processor that outlived its thread would be taken for that of the next thread with the same ident. The release hangs on
a `threading.local`, whose values die in their own thread, before its ident is free again.

Nothing here takes a lock. An id is claimed with one `dict.setdefault`, which is atomic, so neither a finalizer that
pins in the middle of a claim, nor a `fork` in the middle of one, finds anything half-done.
"""

import itertools
import os
import threading
import weakref
from _thread import get_ident
from collections.abc import Callable
from contextvars import ContextVar
from math import inf
from typing import Any, ClassVar

from .._native import in_c, native
from .loops import LiveLoop, live_loop, running_loop

OFF_LOOP = 0
"""The id that stands for all code without a processor."""


@in_c
class Identity:
    """What a pin looks at."""

    __slots__ = ("id", "loop_ref", "thread_id", "wakes_at")

    id: int
    thread_id: int | None
    loop_ref: weakref.ref[Any] | None
    wakes_at: float


class Processor(Identity):
    """One event-loop thread's identity, from the thread's first pin to its end.

    `id` is the smallest positive integer that no live thread owned; `thread_id` is the owner's `threading.get_ident()`,
    or `None` while it is parked between two loops, and once the thread has ended.
    """

    __slots__ = ("__weakref__", "loop", "slice_posted", "timer")

    # On the class, because the last threads end after this module's globals were cleared.
    _owners: ClassVar[dict[int, "Processor"]] = {}

    def __init__(self, thread_id: int | None) -> None:
        self.id = OFF_LOOP
        self.thread_id = thread_id
        self.move_to(None)

    def move_to(self, loop: LiveLoop | None) -> None:
        """From now on the thread runs `loop`. What was left to the one before is its own affair."""
        self.loop: LiveLoop | None = loop
        #: the loop itself, if it is one of asyncio's kind
        self.loop_ref = None if loop is None else loop.ref
        #: the loop's one timer, and when it fires or will be set to, in seconds of time.monotonic()
        self.timer: Any = None
        self.wakes_at = inf
        #: when a slice of freeing was posted that has not run yet, in seconds of time.monotonic()
        self.slice_posted = -inf

    def __repr__(self) -> str:
        return f"<aiopool.Processor {self.id} of thread {self.thread_id}>"

    def park(self) -> None:
        """Make every binding to this processor void, until its thread pins anew. The id stays the thread's.

        A get or put under way goes on as this processor, which is harmless: no other thread can be it.
        """
        self.thread_id = None

    def release(self) -> None:
        """Give the id back. No code may be running as this processor. Safe to call twice."""
        # First of all no context can pin it any more; only then may another thread have the id, and the shards with it.
        self.thread_id = None
        # Not atomic, and need not be: while the id is this processor's, no other can be stored there.
        if self._owners.get(self.id) is self:
            del self._owners[self.id]


UNBOUND = Processor(None)
"""What a context without a binding holds. No thread has the ident `None`, so it never passes the check."""

pinned: ContextVar[Processor] = ContextVar("aiopool.processor", default=UNBOUND)


came_to_loop: list[Callable[["Processor"], object]] = []
"""Called with a processor whose thread runs another loop than when it last pinned."""


def pin() -> Processor | None:
    """The processor of the running code; `None` off-loop. Binds it in the current context. Never waits."""
    processor = running_processor()
    if processor is None:
        return None
    if processor.thread_id is None:
        processor.thread_id = get_ident()  # it was parked
    if pinned.get() is not processor:
        pinned.set(processor)
    return processor


def running_processor() -> Processor | None:
    """As `pin`, but binds nothing, and leaves a parked processor parked.

    For cleanup and freeing, which finalizers and the collector start in any context. A context may outlive its loop, as
    the one in which a thread runs loop after loop does. What uses no pool must not make a binding there, or make one
    valid again, for then the thread would look like a processor when no loop runs.
    """
    running = running_loop()
    if running is None:
        return None
    processor = pinned.get()
    if processor.thread_id != get_ident():
        processor = _own_processor()
    # The thread runs another loop than when it last came here.
    if processor.loop is None or not processor.loop.is_loop(running):
        processor.move_to(live_loop(running))
        for function in came_to_loop:
            function(processor)
    return processor


def current_processor() -> Processor | None:
    """The processor of the running event-loop thread; `None` on a thread that runs no event loop.

    Safe from any thread, a few hundred nanoseconds.

    >>> async def main(): return aiopool.current_processor().thread_id == threading.get_ident()
    >>> asyncio.run(main()), aiopool.current_processor()
    (True, None)
    """
    return pin()


def processors() -> list[Processor]:
    """The live processors. One may be released while the caller looks at it."""
    return list(Processor._owners.values())


def live_loops() -> list[tuple[Processor, LiveLoop]]:
    """The processors whose loop runs in this process, and that loop; the running thread's own first."""
    own = running_processor()
    known = processors()
    return [
        (processor, loop)
        for processor in [each for each in known if each is own] + [each for each in known if each is not own]
        if (loop := processor.loop) is not None and loop.is_running()
    ]


class _Ownership:
    """Lies in its thread's local storage, and so dies with the thread and releases its processor."""

    __slots__ = ("processor",)

    def __init__(self, processor: Processor) -> None:
        self.processor = processor

    def __del__(self) -> None:
        processor = getattr(self, "processor", None)  # not there if an exception broke it off in the making
        if processor is not None:
            processor.release()


_thread = threading.local()


def _own_processor() -> Processor:
    """The processor of this thread, born here if it has none yet."""
    known: _Ownership | None = getattr(_thread, "ownership", None)
    if known is not None:
        return known.processor
    # A finalizer that pins during the claim gets here too, and its processor is in place first: then that one is the
    # thread's, and the second claim releases itself as its ownership is dropped.
    ownership: _Ownership = vars(_thread).setdefault("ownership", _Ownership(_claim()))
    return ownership.processor


def _claim() -> Processor:
    """A new processor with the smallest free id, owned by this thread."""
    processor = Processor(get_ident())
    for processor.id in itertools.count(OFF_LOOP + 1):
        if Processor._owners.setdefault(processor.id, processor) is processor:
            break
    return processor


def _after_fork_in_child() -> None:
    """Only the forking thread lives on, and the loop that it ran is not running here."""
    ownership: _Ownership | None = getattr(_thread, "ownership", None)
    own = None if ownership is None else ownership.processor
    for processor in processors():
        if processor is own:
            processor.park()
            processor.move_to(None)
        else:
            processor.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

if native is not None:
    native.bind(pinned=pinned, pin=pin, processors=processors)
