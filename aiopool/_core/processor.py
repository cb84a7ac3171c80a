"""A processor identifies an event-loop thread: a small dense id that one live thread owns.

Go asks its scheduler which processor runs the code (`runtime_procPin`). Python has no such call, so a processor is
bound in a `ContextVar`, which every task of the loop inherits. But contexts travel: into `asyncio.to_thread`, into
coroutines sent to other loops, and on free-threaded builds into every new thread. A binding is therefore a hint that is
checked on every use: it is valid only in the thread that owns the processor. Where it is not valid, `pin` finds the
thread's own processor and binds that one. So a context that travels costs a lookup and is otherwise harmless.

Comparing thread idents is sound because a processor is released when its thread ends. Idents are reused at once, so a
processor that outlived its thread would be mistaken for that of the next thread with the same ident. A
`threading.local` triggers the release: its values are freed in their own thread, before the ident is free again.

Nothing here takes a lock. An id is claimed with one `dict.setdefault`, which is atomic, so neither a finalizer that
pins during a claim nor a `fork` during a claim sees an inconsistent state.
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
    """The attributes that a pin checks."""

    __slots__ = ("id", "loop_ref", "thread_id", "wakes_at")

    id: int
    thread_id: int | None
    loop_ref: weakref.ref[Any] | None
    wakes_at: float


class Processor(Identity):
    """One event-loop thread's identity, from the thread's first pin to its end.

    `id` is the smallest positive integer that no live thread owned. `thread_id` is the owner's
    `threading.get_ident()`, or `None` while the processor is parked between two loops and after the thread has ended.
    """

    __slots__ = ("__weakref__", "adjusting", "loop", "slice", "timer")

    # On the class, because the last threads end after this module's globals are cleared.
    _owners: ClassVar[dict[int, "Processor"]] = {}

    def __init__(self, thread_id: int | None) -> None:
        self.id = OFF_LOOP
        self.thread_id = thread_id
        self.move_to(None)

    def move_to(self, loop: LiveLoop | None) -> None:
        """Record that the thread now runs `loop`. Timers and slices posted to the previous loop are forgotten."""
        self.loop: LiveLoop | None = loop
        #: weak reference to the loop, if it has asyncio's interface
        self.loop_ref = None if loop is None else loop.ref
        #: the loop's one timer, and when it fires or is about to be set to fire, in seconds of time.monotonic()
        self.timer: Any = None
        self.wakes_at = inf
        #: weak references to what was last posted to the loop to adjust that timer, and to free retired objects
        self.adjusting: weakref.ref[Any] | None = None
        self.slice: weakref.ref[Any] | None = None

    def __repr__(self) -> str:
        return f"<aiopool.Processor {self.id} of thread {self.thread_id}>"

    def park(self) -> None:
        """Invalidate every binding to this processor until its thread pins again. The thread keeps the id.

        A get or put in progress continues as this processor, which is harmless: no other thread can own it.
        """
        self.thread_id = None

    def release(self) -> None:
        """Make the id available again. No code may be running as this processor. Safe to call twice."""
        # Invalidate all bindings first; only then may another thread get the id, and the shards with it.
        self.thread_id = None
        # This need not be atomic: as long as the entry is this processor's, `_claim` stores no other there.
        if self._owners.get(self.id) is self:
            del self._owners[self.id]


UNBOUND = Processor(None)
"""The default in a context without a binding. No thread has the ident `None`, so it never passes the check."""

pinned: ContextVar[Processor] = ContextVar("aiopool.processor", default=UNBOUND)


came_to_loop: list[Callable[["Processor"], object]] = []
"""Callbacks that get a processor whose thread runs a different loop than at its last pin."""


def pin() -> Processor | None:
    """Return the processor of the running code; `None` off-loop. Binds it in the current context. Never waits."""
    processor = running_processor()
    if processor is None:
        return None
    if processor.thread_id is None:
        processor.thread_id = get_ident()  # it was parked
    if pinned.get() is not processor:
        pinned.set(processor)
    return processor


def running_processor() -> Processor | None:
    """Do the same as `pin`, but bind nothing, and leave a parked processor parked.

    For cleanup and freeing, which finalizers and the garbage collector start in any context. A context may outlive its
    loop; one example is the context in which a thread runs loop after loop. Only gets and puts may make a binding
    there, or make one valid again; otherwise the thread would seem to have a processor while it runs no loop.
    """
    running = running_loop()
    if running is None:
        return None
    processor = pinned.get()
    if processor.thread_id != get_ident():
        processor = _own_processor()
    if processor.loop is None or not processor.loop.is_loop(running):
        # The thread runs a different loop than at the last call.
        processor.move_to(live_loop(running))
        for function in came_to_loop:
            function(processor)
    return processor


def current_processor() -> Processor | None:
    """Return the processor of the running event-loop thread; `None` on a thread that runs no event loop.

    Thread-safe. Takes a few hundred nanoseconds.

    >>> async def main(): return aiopool.current_processor().thread_id == threading.get_ident()
    >>> asyncio.run(main()), aiopool.current_processor()
    (True, None)
    """
    return pin()


def processors() -> list[Processor]:
    """The live processors. One may be released while the caller looks at it."""
    return list(Processor._owners.values())


def live_loops() -> list[tuple[Processor, LiveLoop]]:
    """The processors whose loop runs in this process, each with that loop; the running thread's own first."""
    own = running_processor()
    known = processors()
    return [
        (processor, loop)
        for processor in [each for each in known if each is own] + [each for each in known if each is not own]
        if (loop := processor.loop) is not None and loop.is_running()
    ]


class _Ownership:
    """Held in a thread's local storage, so that the processor is released when the thread ends."""

    __slots__ = ("processor",)

    def __init__(self, processor: Processor) -> None:
        self.processor = processor

    def __del__(self) -> None:
        processor = getattr(self, "processor", None)  # missing if an exception interrupted __init__
        if processor is not None:
            processor.release()


_thread = threading.local()


def _own_processor() -> Processor:
    """The processor of this thread, created here if it has none yet."""
    known: _Ownership | None = getattr(_thread, "ownership", None)
    if known is not None:
        return known.processor
    # A finalizer that pins during the claim gets here too and stores its processor first. Then the thread keeps that
    # one, and the second claim is released when its ownership is dropped.
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
    """Release all processors but the forking thread's own, which is parked: its loop does not run in the child."""
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
    native.bind(pinned=pinned, pin=pin, processors=Processor._owners)
