"""Loops, threads, cleanup, `clear`, statistics and pools that come and go, all on the same pools, for some seconds.

Every object is in one place at a time, or the program says where it was not and fails: each hand-out marks the object,
and each put removes the mark. Buffers are filled with a pattern of their own and handed across threads before they are
looked at again.

Run: python stress.py [SECONDS [LOOPS [THREADS]]]
"""

import asyncio
import gc
import queue
import random
import sys
import threading
import time

import aiopool

SIZES = (100, 1500, 4096, 70_000)


class Marked:
    """An object that notices when two hold it."""

    __slots__ = ("__weakref__", "held")

    def __init__(self):
        self.held = []

    def take(self):
        self.held.append(threading.get_ident())
        if len(self.held) != 1:
            raise AssertionError(f"handed out twice: {self.held}")

    def leave(self):
        self.held.pop()


class Stress:
    """What all threads share."""

    def __init__(self, seconds):
        self.until = time.monotonic() + seconds
        self.pool = aiopool.Pool(Marked, name="shared")
        self.bounded = aiopool.Pool(Marked, max_idle=4, idle_timeout=0.05)
        self.connections = aiopool.AsyncPool(Marked)
        self.bound = aiopool.Pool(Marked, loop_bound=True)
        self.buffers = aiopool.BufferPool(max_idle_bytes=1 << 20)
        self.handed_over = queue.SimpleQueue()
        self.operations = []
        self.errors = []

    def run(self, work):
        """`work` until the time is over; its operations are counted, its errors kept."""
        rng, count = random.Random(threading.get_ident()), 0
        try:
            while time.monotonic() < self.until and not self.errors:
                count += work(rng)
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self.operations.append(count)

    # --- what they do ---

    def use_pools(self, rng):
        """Some gets, then their puts."""
        pool = rng.choice((self.pool, self.bounded))
        held = [pool.get() for _ in range(rng.randint(1, 8))]
        for obj in held:
            obj.take()
        for obj in held:
            obj.leave()
            pool.put(obj)
        with pool.borrow() as obj:
            obj.take()
            obj.leave()
        return 2 * len(held) + 2

    def use_buffers(self, rng):
        """Fill a buffer, and look at one that another thread filled."""
        view = self.buffers.acquire(rng.choice(SIZES))
        pattern = rng.randrange(256)
        view[:] = bytes([pattern]) * len(view)
        part = view[1 : len(view) // 2]
        del view
        self.handed_over.put((part, pattern))
        try:
            part, pattern = self.handed_over.get_nowait()
        except queue.Empty:
            return 1
        if bytes(part) != bytes([pattern]) * len(part):
            raise AssertionError("a buffer was reused while it was referenced")
        return 1

    def clean(self, rng):
        """Whatever takes objects out."""
        rng.choice((aiopool.cleanup, self.pool.clear, self.bounded.clear, self.buffers.clear, gc.collect))()
        self.pool.stats(), self.buffers.stats()
        passing = aiopool.Pool(Marked)
        passing.put(Marked())
        del passing
        time.sleep(0.001)
        return 1

    async def use_async(self):
        """A borrow on a loop, and an object of its own."""
        async with self.connections.borrow() as obj:
            obj.take()
            await asyncio.sleep(0)
            obj.leave()
        obj = self.bound.get()
        obj.take()
        obj.leave()
        self.bound.put(obj)

    # --- who they are ---

    def loop(self):
        """A thread with one loop after another."""
        while time.monotonic() < self.until and not self.errors:
            asyncio.run(self.on_loop(min(self.until, time.monotonic() + 1)))

    async def on_loop(self, until):
        """One loop's life."""
        rng = random.Random(threading.get_ident())
        count = 0
        try:
            while time.monotonic() < until and not self.errors:
                for _ in range(20):
                    count += self.use_pools(rng) + self.use_buffers(rng)
                await self.use_async()
                count += 4
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self.operations.append(count)


def main(seconds=5.0, loops=4, threads=2):
    stress = Stress(float(seconds))
    workers = [threading.Thread(target=stress.loop) for _ in range(int(loops))]
    for work in [stress.use_pools, stress.use_buffers] * int(threads) + [stress.clean, stress.clean]:
        workers.append(threading.Thread(target=stress.run, args=(work,)))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if stress.errors:
        raise stress.errors[0]
    while not stress.handed_over.empty():
        stress.handed_over.get()
    gc.collect()
    in_use = stress.buffers.stats().bytes_in_use
    if in_use:
        raise AssertionError(f"{in_use} bytes are in use after the last buffer was dropped")
    print(f"{sum(stress.operations):,} operations, {aiopool.implementation}, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
