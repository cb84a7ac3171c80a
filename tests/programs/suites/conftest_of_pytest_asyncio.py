"""A fixture for the session, on the loop of the scope $LOOP_SCOPE."""

import os

import pytest_asyncio
from link import Link


@pytest_asyncio.fixture(scope="session", loop_scope=os.environ["LOOP_SCOPE"])
async def link():
    yield Link()
