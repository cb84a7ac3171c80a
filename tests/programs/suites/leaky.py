"""Tests that leak, each in a different way, and some that do not."""

import asyncio
import threading

import pytest
from frames import pool
from shop import UVLOOP


def test_good():
    with pool.borrow():
        pass


def test_leaky():
    pool.get()  # here


def test_after():
    pool.put(pool.get())


async def leaks():
    kept = pool.get()  # in leaks


@pytest.mark.asyncio
async def test_on_asyncio():
    await leaks()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio", UVLOOP], ids=["a", "t", "u"])
async def test_on_anyio():
    await leaks()


@pytest.mark.asyncio
async def test_in_a_thread():
    await asyncio.to_thread(pool.get)


def test_in_another_loop():
    asyncio.run(leaks())
    thread = threading.Thread(target=asyncio.run, args=(leaks(),))
    thread.start()
    thread.join()
