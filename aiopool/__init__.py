"""Go's `sync.Pool` for Python's event loops."""

from ._collector import cleanup, pools
from ._implementation import implementation
from ._pool import Borrow, Pool
from ._processor import Processor, current_processor
from .aio import AsyncBorrow, AsyncPool
from .stats import PoolStats, ProcessorStats

__all__ = [
    "AsyncBorrow",
    "AsyncPool",
    "Borrow",
    "Pool",
    "PoolStats",
    "Processor",
    "ProcessorStats",
    "cleanup",
    "current_processor",
    "implementation",
    "pools",
]
