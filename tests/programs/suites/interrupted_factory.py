"""Ctrl-C comes while a factory waits."""

import asyncio
import signal
import threading

from aiopool.testing import pooled_fixture

# A shell that starts pytest in the background has it ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pooled_fixture
async def shop():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    try:
        await asyncio.sleep(100)
    finally:
        print("<cancelled>")


def test_before():
    """Passes."""


def test_interrupted(shop):
    """Does not end."""
