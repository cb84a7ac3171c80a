"""Callbacks that the package posts to a loop: at most one of each kind waits there at a time.

Any thread may post to a loop. A loop that is blocked for a second would find thousands of callbacks in its queue if
other threads clear pools in the meantime, and would be held up again by running them all. So whoever wants to post
first checks whether one still waits.

A loop may end or be interrupted at any moment, with the callback in its queue. Then it drops the callback, whose
finalizer takes care of what would otherwise be forgotten. For the same reason the poster keeps only a weak reference:
the check must not find a callback that no loop holds any more.
"""

import sys
import weakref
from collections.abc import Callable
from typing import Any

from .loops import LiveLoop


class Posted:
    """A callback for one loop. Subclasses define `run` and `dropped`."""

    __slots__ = ("__weakref__", "_unfinished", "begun", "loop")

    def __init__(self, loop: LiveLoop) -> None:
        self.loop = loop
        #: whether the loop has begun to run it, or dropped it
        self.begun = False
        # Whether it is posted and has not run to its end.
        self._unfinished = False

    def run(self) -> None:
        """The work, on the loop."""
        raise NotImplementedError

    def dropped(self) -> None:
        """Called if the loop ended before the work was done, or if an exception interrupted it."""
        raise NotImplementedError

    def post(self) -> bool:
        """Post this to the loop. Returns `False` if the loop is not running."""
        # Before the call, because the loop may run this to its end before `call_soon` returns.
        self._unfinished = True
        posted = self.loop.call_soon(self)
        if not posted:
            self._unfinished = False
        return posted

    def __call__(self) -> None:
        # Before the work: what other threads want from here on, it may miss, so they must post again.
        self.begun = True
        self.run()
        self._unfinished = False

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # `_unfinished` is missing if an exception interrupted __init__.
        if getattr(self, "_unfinished", False) and not _is_finalizing():
            self.begun = True  # weak references to it are still alive
            self.dropped()


def waits(posted: "weakref.ref[Any] | None", loop: LiveLoop) -> bool:
    """Whether the `Posted` is still in the queue of `loop`, which is running.

    Two threads that ask at the same time may both get `False` and post. Then one more waits, which is harmless.
    """
    found = None if posted is None else posted()
    return found is not None and not found.begun and found.loop is loop  # the thread may run another loop by now
