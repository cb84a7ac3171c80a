"""On 3.11 in pure Python: views are valid, blocks are not reused, and one warning says so."""

import sys
import warnings

import aiopool

pool = aiopool.BufferPool()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    line = sys._getframe().f_lineno + 1
    held = [pool.acquire(100) for _ in range(5)]
    other = aiopool.BufferPool().acquire(1)
(one,) = caught
assert (one.category, one.filename, one.lineno) == (RuntimeWarning, "<string>", line)
assert "Python 3.11" in str(one.message)
assert "3.12" in str(one.message)
for mark, view in enumerate(held):
    view[:] = bytes([mark]) * 100
assert all(bytes(view) == bytes([mark]) * 100 for mark, view in enumerate(held))
assert pool.stats().bytes_in_use == 5 * 1024
del view
held.clear()
stats = pool.stats()
assert (stats.bytes_in_use, stats.bytes_idle, stats.created, stats.hit_rate) == (0, 0, 5, 0.0)
print("ok")
