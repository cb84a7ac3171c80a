"""aiopool reuses objects that are expensive to create: Go's `sync.Pool` for Python's event loops.

Use `BufferPool` for buffers of bytes, `Pool` for other objects, and `AsyncPool` for objects that are created or closed
with `await`. `aiopool.streams` has asyncio's streams over pooled buffers, and `aiopool.testing` helps test suites.

>>> pool = Pool(lambda: bytearray(65536))
>>> with pool.borrow() as buffer: buffer[:5] = b"hello"

PYTEST_DONT_REWRITE: a marker for pytest. Without it, pytest warns programs that import this package before they run it.
"""

from importlib import import_module
from typing import Any

from . import _debug
from ._async_pool import AsyncBorrow, AsyncPool
from ._buffer_pool import BufferPool
from ._core.cleanup import cleanup
from ._core.processor import Processor, current_processor
from ._core.registry import pools
from ._native import implementation
from ._pool import Borrow, Pool
from .stats import BufferStats, Holder, OversizeStats, PoolStats, ProcessorStats, SizeClassStats

__all__ = [
    "AsyncBorrow",
    "AsyncPool",
    "Borrow",
    "BufferPool",
    "BufferStats",
    "Holder",
    "OversizeStats",
    "Pool",
    "PoolStats",
    "Processor",
    "ProcessorStats",
    "SizeClassStats",
    "cleanup",
    "current_processor",
    "implementation",
    "pools",
]


def __getattr__(name: str) -> Any:
    """`aiopool.streams` and `aiopool.testing`, imported when they are first used."""
    if name in ("streams", "testing"):
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_debug.turn_on_when_asked()
