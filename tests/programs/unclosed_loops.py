"""Loops that were never closed are collected with their descriptors, even if a pool kept objects for them.

The argument is one of KINDS. Prints "ok".
"""

import asyncio
import gc
import os
import sys
import warnings

import aiopool

COUNT = 200


def report(unraisable):
    # On free-threaded builds the collector may close a loop's sockets before the loop, which then cannot close itself.
    # The text identifies it: the report has no reference to the deallocator itself.
    if "BaseEventLoop.__del__" not in f"{unraisable.object} {unraisable.err_msg}":
        sys.__unraisablehook__(unraisable)


sys.unraisablehook = report


class Session:
    """Refers to its loop, as a client session does."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()


async def close(thing):
    await asyncio.sleep(0)


def no_pool():
    return None


def loop_bound():
    return aiopool.AsyncPool(Session, loop_bound=True)


def loop_bound_with_close():
    return aiopool.AsyncPool(Session, close=close, loop_bound=True)


async def use(pool):
    if pool is None:
        return
    things = [await pool.get() for _ in range(3)]
    for thing in things:
        await pool.put(thing)
    assert pool.stats().idle >= 3


def descriptors():
    return len(os.listdir("/proc/self/fd"))


KINDS = {kind.__name__: kind for kind in (no_pool, loop_bound, loop_bound_with_close)}

pool = KINDS[sys.argv[1]]()
# A loop that is collected warns that it was never closed; and asyncio warns of each async generator that was started on
# such a loop, such as the one that closes the objects bound to it.
warnings.simplefilter("ignore", ResourceWarning)
warnings.simplefilter("ignore", RuntimeWarning)
gc.collect()
before = descriptors()
for _ in range(COUNT):
    asyncio.new_event_loop().run_until_complete(use(pool))
gc.collect()
gc.collect()
left = descriptors() - before
# The thread's processor may still refer to the last loop.
assert left <= 3, f"{left} descriptors are left of {COUNT} loops"
if pool is not None:
    idle = pool.stats().idle
    assert idle <= 3, f"{idle} objects are idle for loops that are gone"
print("ok")
