"""One process of `get_put.py`: on each request, times aiopool and the alternatives to it."""

import asyncio

import _containers
import _other_pools
from _contexts import CONTEXTS
from _operations import ASYNC_PATHS, PATHS
from _report import environment
from _timing import Timer, no_collections
from _workers import requests

CANDIDATES = [
    _containers.LIST,
    _containers.LIST_IN_FLIGHT,
    _containers.EMPTY_LOOP,
    *_containers.QUEUES,
    *_containers.FRESH.values(),
    *_other_pools.CANDIDATES,
    *_other_pools.MANY_IN_FLIGHT,
    *PATHS,
    *ASYNC_PATHS,
    *CONTEXTS,
]


async def main() -> None:
    timer = Timer()
    with no_collections():
        unavailable = await timer.calibrate(CANDIDATES)
        for reply in requests({"environment": environment(), "unavailable": unavailable}):
            reply(await timer.round())


if __name__ == "__main__":
    asyncio.run(main())
