"""The child of a fork from inside a coroutine creates loop-bound objects of its own. Prints "ok"."""

import asyncio
import os

from shared import Thing

from aiopool import Pool

pool = Pool(Thing, loop_bound=True)


async def request():
    with pool.borrow() as thing:
        return thing


async def main():
    thing = await request()
    child = os.fork()
    if child == 0:
        # The parent's loop does not run here, and asyncio.run works.
        code = 1
        try:
            code = int(asyncio.run(request()) is thing)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert await request() is thing


asyncio.run(main())
print("ok")
