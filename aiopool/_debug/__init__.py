"""Debug mode: finds mistakes in how a program uses its pools, and reports where they are.

It is switched on by `AIOPOOL_DEBUG` in the environment, or when a pool is first used on an asyncio loop that is itself
in debug mode. Then an observer is notified of every get and put, and keeps a record of each object. While debug mode is
off there is no observer, and it costs the fast paths nothing.
"""

import asyncio
import atexit
import os
import sys
import warnings

from .._core.observation import Observation, observe
from .._core.processor import Processor, came_to_loop
from . import _records
from ._observer import Recorder

_recorder = Recorder()


def is_on() -> bool:
    """Whether the debug mode is on."""
    return Observation.observer is _recorder


def turn_on() -> None:
    """Observe every get and put of all pools from now on."""
    if not is_on():
        _records.listen()
        observe(_recorder)


def turn_off() -> None:
    """Stop observing and delete all records. Gets and puts of other threads during the call may still be recorded."""
    observe(None)
    _records.stop_listening()
    _records.forget_all()
    _recorder.forget_all()


def _show_warnings() -> None:
    # By default Python shows no ResourceWarning. A user who switched on debug mode wants to see ours.
    if not sys.warnoptions:
        warnings.filterwarnings("default", "aiopool: ", ResourceWarning)


def _came_to_loop(processor: Processor) -> None:
    running = asyncio._get_running_loop()
    if not is_on() and running is not None and running.get_debug():
        _show_warnings()
        turn_on()


def _report_at_exit() -> None:
    """Report the objects lost so far, then turn off: objects that are freed during shutdown are not losses."""
    if is_on():
        _records.sweep()
        turn_off()


def turn_on_when_asked() -> None:
    """Turn on now if `AIOPOOL_DEBUG` is set; otherwise when a pool is used on a loop that is in debug mode."""
    atexit.register(_report_at_exit)
    came_to_loop.append(_came_to_loop)
    if os.environ.get("AIOPOOL_DEBUG"):
        _show_warnings()
        turn_on()
