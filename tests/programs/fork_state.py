"""What the child of a fork keeps: of the processors only its own, which is parked; no running loop; no held lock."""

import asyncio
import sys

import trio
from children import in_forks
from loops import loop_thread
from shared import Thing

import aiopool


def live_loops():
    return [loop for _, loop in aiopool._core.processor.live_loops()]


async def main():
    pool = aiopool.Pool(Thing)
    for _ in range(3):
        pool.put(Thing())
    own = aiopool.current_processor()
    loop = own.loop

    def check():
        assert aiopool.current_processor() is None
        assert aiopool._core.processor.processors() == [own]
        assert (own.thread_id, own.loop) == (None, None)
        assert not loop.is_running()
        assert not loop.call_soon(print)
        if aiopool.implementation == "python":
            assert not shard.lock.locked()

    with loop_thread() as other:
        other.call(aiopool.current_processor)
        assert len(live_loops()) == 2
        _, shard = pool._store.shards()[0]
        if aiopool.implementation == "python":
            shard.lock.acquire()
        in_forks(check, 1)
        assert aiopool.current_processor() is own
        assert len(live_loops()) == 2


if sys.argv[1] == "asyncio":
    asyncio.run(main())
else:
    trio.run(main)
print("ok")
