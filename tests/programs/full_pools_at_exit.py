"""The interpreter ends while pools are full of objects whose finalizers use the pools. Prints nothing, nor crashes."""

import asyncio
import sys
import threading

import aiopool


class PutsBack:
    """Uses the pools as it dies; but nothing written in Python once Python has cleared the modules.

    That late dies what a loop was still to free, in a thread that Python has stopped.
    """

    def __del__(self, native=aiopool.implementation == "native"):
        cleared = aiopool.cleanup is None
        if native or not cleared:
            pool.put(self)
            other.put(other.get())
        if not cleared:
            aiopool.cleanup()


pool, other = aiopool.Pool(name="full"), aiopool.Pool(object)
PutsBack.ring = [pool, aiopool]


async def main():
    for _ in range(100):
        pool.put(PutsBack())
    aiopool.cleanup()
    for _ in range(100):
        pool.put(PutsBack())


asyncio.run(main())
thread = threading.Thread(target=asyncio.run, args=(main(),))
thread.start()
thread.join()
pool.put(PutsBack())
forever = threading.Event()
threading.Thread(target=lambda: asyncio.run(main()) or forever.wait(), daemon=True).start()
sys.keep = [pool, other, PutsBack]
