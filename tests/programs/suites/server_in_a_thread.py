"""Objects that a server in another thread gets during a test do not belong to the test."""

import asyncio
import threading

import pytest
from frames import pool

kept = []


async def serve():
    return pool.get()


@pytest.fixture(scope="session", autouse=True)
def server():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def request():
        return asyncio.run_coroutine_threadsafe(serve(), loop).result(30)

    pool.put(request())
    yield request
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_first():
    """Passes."""


def test_request(server):
    kept.append(server())
