"""Tests on every kind of loop that see an empty pool, unless $ISOLATED is "no"."""

import asyncio
import gc
import os

import pytest
from filled_frames import pool

pytestmark = [] if os.environ.get("ISOLATED") == "no" else pytest.mark.usefixtures("aiopool_isolated")


def see_nothing():
    assert pool.stats().idle == pool.stats().gets == 0
    obj = pool.get()
    assert pool.stats().created == 1
    pool.put(obj)
    pool.put(bytearray(77))


@pytest.fixture(params=range(2))
def twice(request):
    """Each test runs twice."""


def test_plain(twice):
    see_nothing()


@pytest.mark.asyncio
async def test_asyncio(twice):
    see_nothing()


@pytest.mark.asyncio(loop_scope="session")
async def test_session_loop(twice):
    see_nothing()


@pytest.mark.asyncio
async def test_worker_thread(twice):
    await asyncio.to_thread(see_nothing)
    pool.clear()


@pytest.mark.asyncio
async def test_loop_in_executor(twice):
    async def main():
        see_nothing()

    await asyncio.get_running_loop().run_in_executor(None, asyncio.run, main())


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="module")
async def runner(anyio_backend):
    pool.put(pool.get())  # this binds the context of all the module's tests to a processor


@pytest.mark.anyio
async def test_anyio(runner, twice):
    see_nothing()


def test_a_collection_does_not_reach_objects_set_aside():
    for _ in range(3):
        gc.collect()
