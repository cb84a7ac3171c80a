"""What the child of a fork keeps: of the processors only its own, which is parked; no running loop; no held lock."""

import asyncio
import os
import sys

import trio
from loops import loop_thread
from shared import Thing

import aiopool


def check_in_a_child(check):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"


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
        check_in_a_child(check)
        assert aiopool.current_processor() is own
        assert len(live_loops()) == 2


if sys.argv[1] == "asyncio":
    asyncio.run(main())
else:
    trio.run(main)
print("ok")
