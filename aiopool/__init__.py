"""Go's `sync.Pool` for Python's event loops.

PYTEST_DONT_REWRITE: a word to pytest, which would warn programs that import this before they run it.
"""

from . import _debug
from ._collector import cleanup, pools
from ._implementation import implementation
from ._pool import Borrow, Pool
from ._processor import Processor, current_processor
from .aio import AsyncBorrow, AsyncPool
from .buffers import BufferPool
from .stats import BufferStats, OversizeStats, PoolStats, ProcessorStats, SizeClassStats

__all__ = [
    "AsyncBorrow",
    "AsyncPool",
    "Borrow",
    "BufferPool",
    "BufferStats",
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

_debug.turn_on_when_asked()
