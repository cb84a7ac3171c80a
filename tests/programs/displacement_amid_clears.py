"""One loop displaces blocks while another thread clears a size class whose blocks it looks at.

On a free-threaded build the generations of a store can be replaced at any moment. A displacement that looks up a shard,
locks it, and looks it up again to unlock it, finds another shard the second time, or none.

Run: python displacement_amid_clears.py ROUNDS
"""

import asyncio
import sys
import threading

import aiopool
from aiopool._core import freeing

KIB = 1024


def leave(pool, n, count):
    """Make blocks of `n` bytes idle."""
    views = [pool.acquire(n) for _ in range(count)]
    views.clear()


def main(rounds):
    pool = aiopool.BufferPool(min_size=KIB, max_size=32 * KIB, max_idle_bytes=64 * KIB)
    store = next(each.store for each in pool._size_classes if each.size == KIB)

    async def displace():
        for _ in range(rounds):
            pool.acquire(64 * KIB)  # larger than any class: a new block each time, so that the idle ones get older
            leave(pool, 20 * KIB, 4)
            leave(pool, 32 * KIB, 3)
            await asyncio.sleep(0)  # so that the loop frees what was cleared, and its bytes leave the budget

    displacing = threading.Thread(target=asyncio.run, args=(displace(),))
    displacing.start()
    while displacing.is_alive():
        leave(pool, KIB, 4)
        freeing.retire(store.clear())
        freeing.free_queued()
    stats = pool.stats()
    assert stats.displaced > 0
    assert stats.bytes_in_use == 0
    print("ok")


main(int(sys.argv[1]))
