"""One object serves tests on loops of every kind and scope."""

import asyncio

import pytest
from shop import UVLOOP, events

loops = []


@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(5))
async def test_asyncio(shop, number):
    loops.append(asyncio.get_running_loop())
    assert not shop.orders
    shop.orders.append(number)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio", UVLOOP])
async def test_anyio(shop):
    assert not shop.orders
    shop.orders.append("anyio")


def test_plain(shop):
    assert not shop.orders
    shop.orders.append("plain")


class TestClass:
    @pytest.mark.asyncio(loop_scope="class")
    async def test_class(self, shop):
        assert not shop.orders


@pytest.mark.asyncio(loop_scope="module")
async def test_module(shop):
    assert not shop.orders


@pytest.mark.asyncio(loop_scope="package")
async def test_package(shop):
    assert not shop.orders


@pytest.mark.asyncio(loop_scope="session")
async def test_session(shop):
    assert not shop.orders


def test_counts():
    assert len(set(loops)) == 5
    assert events == ["created"] + 13 * ["reset"]
