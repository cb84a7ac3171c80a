"""Which event loop the demo runs on: uvloop where it is installed, else asyncio's."""

import asyncio
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loops.

    asyncio's is the selector loop on Windows too: a proactor receives into a buffer of its own and copies from there,
    and then pooling would save nothing.
    """
    try:
        import uvloop
    except ImportError:
        return asyncio.SelectorEventLoop
    return uvloop.new_event_loop


def loop_name() -> str:
    """Whose loop `loop_factory` makes: "uvloop" or "asyncio"."""
    return loop_factory().__module__.partition(".")[0]
