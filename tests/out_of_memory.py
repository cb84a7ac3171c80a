"""Lets one allocation of an operation fail, with the helpers of CPython's own tests."""

import _testcapi
from collections.abc import Callable
from typing import Any


def fails(operate: Callable[[Any], object], pool: Any, n: int) -> bool:
    """Whether `operate(pool)` raises MemoryError if its allocation number `n` fails."""
    _testcapi.set_nomemory(n, n + 1)
    try:
        operate(pool)
    except MemoryError:
        return True
    except RuntimeError as error:
        if str(error) != "can't allocate lock":  # threading.Lock raises this instead
            raise
        return True
    finally:
        _testcapi.remove_mem_hooks()
    return False
