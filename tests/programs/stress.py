"""Loops, threads, cleanup, `clear`, statistics and short-lived pools, all on the same pools, for some seconds.

The program fails if an object is in two places at a time: the pooled objects are locks, each get takes the lock, and
each put releases it. Buffers are filled with a pattern of their own and passed to another thread before they are
checked; so are the views that streams return.

The loops over single operations run in C, by `map` and its consumers. Under ThreadSanitizer the interpreter itself is
so slow that loops in Python would leave hardly any time for the operations.

Run: python stress.py [SECONDS [LOOPS [THREADS]]]
"""

import asyncio
import gc
import queue
import random
import socket
import sys
import threading
import time
from collections import deque
from itertools import repeat, starmap
from operator import eq, getitem, setitem

import aiopool

SIZES = (100, 1500, 4096, 20_000)
FRAMES = (100, 4096, 20_000)
IN_TURN = (100, 1000, 20_000)
"""How many gets, each followed by its put, run at a time."""


def for_each(function, *columns):
    """Call `function` for each row of the columns, in C."""
    deque(map(function, *columns), maxlen=0)


def calls(function, times):
    """The results of calling `function` `times` times, in C."""
    return starmap(function, repeat((), times))


def take(locks):
    """Take the locks of objects that were handed out: none of them may be held already."""
    if not all(map(Lock.acquire, locks, repeat(False))):
        raise AssertionError("an object was handed out twice")


def release(locks):
    """Release the locks: the objects are about to be put."""
    for_each(Lock.release, locks)


Lock = type(threading.Lock())


class Stress:
    """The pools and results that all threads share."""

    def __init__(self, seconds):
        self.until = time.monotonic() + seconds
        self.pool = aiopool.Pool(threading.Lock, name="shared")
        self.bounded = aiopool.Pool(threading.Lock, max_idle=4, idle_timeout=0.05)
        self.connections = aiopool.AsyncPool(threading.Lock)
        self.bound = aiopool.Pool(threading.Lock, loop_bound=True)
        self.buffers = aiopool.BufferPool(max_idle_bytes=1 << 20)
        self.handed_over = queue.SimpleQueue()
        self.operations = []
        self.errors = []

    def run(self, work):
        """Call `work` until the time is over; count its operations, and keep its errors."""
        rng, count = random.Random(threading.get_ident()), 0
        try:
            while time.monotonic() < self.until and not self.errors:
                count += work(rng)
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self.operations.append(count)

    # --- the work; each returns its number of operations ---

    def use_pools(self, rng):
        """Many gets and as many puts: first in turn, then all gets before all puts."""
        pool, count, in_turn = rng.choice((self.pool, self.bounded)), rng.randint(1, 100), rng.choice(IN_TURN)
        for_each(pool.put, calls(pool.get, in_turn))
        held = list(calls(pool.get, count))
        take(held)
        release(held)
        for_each(pool.put, held)
        with pool.borrow() as lock:
            take([lock])
            release([lock])
        return 2 * (in_turn + count + 1)

    def use_buffers(self, rng):
        """Fill buffers, and check those that another thread filled."""
        size, count = rng.choice(SIZES), rng.randint(1, 30)
        pattern = bytes([rng.randrange(256)]) * size
        views = list(map(self.buffers.acquire, repeat(size, count)))
        for_each(setitem, views, repeat(slice(None)), repeat(pattern))
        half = slice(1, size // 2)
        self.hand_over(list(map(getitem, views, repeat(half))), pattern[half])
        return count

    def hand_over(self, views, pattern):
        """Give views with these bytes to another thread, and check the views that another thread has given."""
        self.handed_over.put((views, pattern))
        try:
            views, pattern = self.handed_over.get_nowait()
        except queue.Empty:
            return
        if not all(map(eq, map(bytes, views), repeat(pattern))):
            raise AssertionError("a buffer was reused while it was referenced")

    def clean(self, rng):
        """Everything that removes idle objects. Collections are rare: each stops all threads."""
        rng.choice((aiopool.cleanup, self.pool.clear, self.bounded.clear, self.buffers.clear))()
        if rng.random() < 0.01:
            gc.collect()
        self.pool.stats(), self.buffers.stats()
        passing = aiopool.Pool(threading.Lock)
        passing.put(threading.Lock())
        del passing
        time.sleep(0.01)  # under ThreadSanitizer the loops free less than a thread without a pause can retire
        return 1

    async def use_async(self, rng):
        """A borrow on a loop, and objects of its own."""
        async with self.connections.borrow() as lock:
            take([lock])
            await asyncio.sleep(0)
            release([lock])
        held = list(calls(self.bound.get, 10))
        take(held)
        release(held)
        for_each(self.bound.put, held)
        return 22

    async def use_stream(self, rng, reader, peer):
        """Send a frame through a socket; another thread gets the received view."""
        size = rng.choice(FRAMES)
        frame = bytes([rng.randrange(256)]) * size
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(peer, frame))
        self.hand_over([await reader.readexactly(size)], frame)
        await sending
        return 1

    # --- the threads ---

    def loop(self):
        """Run one loop after another."""
        while time.monotonic() < self.until and not self.errors:
            asyncio.run(self.on_loop(min(self.until, time.monotonic() + 1)))

    async def on_loop(self, until):
        """The work on one loop."""
        rng, count = random.Random(threading.get_ident()), 0
        ours, peer = socket.socketpair()
        peer.setblocking(False)
        reader, writer = await aiopool.streams.open_connection(sock=ours, buffers=self.buffers)
        try:
            while time.monotonic() < until and not self.errors:
                count += sum([self.use_pools(rng) for _ in range(3)]) + self.use_buffers(rng)
                count += await self.use_async(rng) + await self.use_stream(rng, reader, peer)
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self.operations.append(count)
            writer.close()
            peer.close()


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
