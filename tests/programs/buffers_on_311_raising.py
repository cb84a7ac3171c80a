"""On 3.11 in pure Python, with that warning an error: it goes to sys.unraisablehook, as errors of finalizers do."""

import sys

import aiopool

told = []
sys.unraisablehook = lambda args: told.append(args.exc_value)
pool = aiopool.BufferPool()
assert len(pool.acquire(10)) == len(pool.acquire(10)) == 10
[error] = told
assert type(error) is RuntimeWarning, error
print("ok")
