"""Finalizers that run as late as possible acquire a buffer once more."""

import sys

import aiopool

pool = aiopool.BufferPool()
pool.acquire(10)


class Late:
    """Acquires in its finalizer, if the Python code for that still exists."""

    def __init__(self):
        self.view = pool.acquire(1000)
        self.acquire = pool.acquire

    def __del__(self):
        try:
            view = self.acquire(5)
        except (TypeError, AttributeError, NameError):
            pass
        else:
            view[:] = b"later"
            del view
        self.view[0] = 1
        del self.view


late = Late()
late_cycle = Late()
late_cycle.itself = late_cycle
sys.late = Late()
print("ok")
