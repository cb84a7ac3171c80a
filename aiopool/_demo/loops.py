"""The event loop of the demo: uvloop's if that is installed, otherwise asyncio's."""

import asyncio
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The factory of the loops.

    asyncio's selector loop is used on Windows too, because a proactor loop receives into its own buffer and copies from
    there, so pooling would save nothing.
    """
    try:
        import uvloop
    except ImportError:
        return asyncio.SelectorEventLoop
    return uvloop.new_event_loop


def loop_name() -> str:
    """The package of the loop that `loop_factory` creates: "uvloop" or "asyncio"."""
    return loop_factory().__module__.partition(".")[0]
