"""On 3.11 in pure Python, with that warning as an error: it goes to sys.unraisablehook, like errors of finalizers."""

import sys

import aiopool

reported = []
sys.unraisablehook = lambda args: reported.append(args.exc_value)
pool = aiopool.BufferPool()
assert len(pool.acquire(10)) == len(pool.acquire(10)) == 10
[error] = reported
assert type(error) is RuntimeWarning, error
print("ok")
