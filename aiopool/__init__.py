"""Go's `sync.Pool` for Python's event loops.

PYTEST_DONT_REWRITE: a word to pytest, which would warn programs that import this before they run it.
"""

from . import _debug
from ._collector import cleanup, pools
from ._implementation import implementation
from ._pool import Borrow, Pool
from ._processor import Processor, current_processor
from .stats import PoolStats, ProcessorStats

__all__ = [
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

_debug.turn_on_when_asked()
