"""Mistakes raise at once, with an error that says what to do."""

import functools

import pytest


async def make():
    """An async factory."""


class AsyncCallable:
    async def __call__(self, *args):
        """An async factory too."""


@pytest.mark.parametrize("function", [make, functools.partial(make), AsyncCallable()], ids=["def", "partial", "call"])
@pytest.mark.parametrize("what", ["new", "reset"])
def test_a_pool_rejects_async_functions(aiopool, what, function):
    with pytest.raises(TypeError, match=rf"{what} must not be async.*AsyncPool"):
        aiopool.Pool(**{what: function})


def test_an_object_is_not_kept_if_reset_returns_an_awaitable(aiopool):
    pool = aiopool.Pool(reset=lambda obj: make())
    with pytest.raises(TypeError, match=r"reset of .* returned an awaitable.*AsyncPool"):
        pool.put(bytearray())
    assert (pool.stats().idle, pool.stats().rejected) == (0, 1)


@pytest.mark.parametrize("kind", ["Pool", "AsyncPool", "BufferPool"])
def test_the_name_must_be_a_string(aiopool, kind):
    arguments = [object] if kind == "AsyncPool" else []
    with pytest.raises(TypeError, match="name must be a string or None, not 5"):
        getattr(aiopool, kind)(*arguments, name=5)


@pytest.mark.parametrize("seconds", [10**400, -(10**400), float("nan"), 0])
def test_an_invalid_idle_timeout_is_rejected(aiopool, seconds):
    with pytest.raises(ValueError, match="idle_timeout must be"):
        aiopool.Pool(idle_timeout=seconds)


def test_the_error_of_a_double_put_does_not_show_the_contents(aiopool):
    secret = bytearray(b"password")

    async def put_twice():
        pool = aiopool.Pool()
        pool.put(secret)
        pool.put(secret)

    import asyncio

    with pytest.raises(ValueError, match=r"<bytearray object at 0x[0-9a-f]+> was put already") as raised:
        asyncio.run(put_twice())
    assert "password" not in str(raised.value)


def test_pools_that_compare_equal_are_distinct(aiopool):
    class Same(aiopool.Pool):
        def __eq__(self, other):
            return isinstance(other, Same)

        def __hash__(self):
            return 1

    pools = [Same(name=name) for name in "ab"]
    for pool in pools:
        pool.put(object())
    assert sum(any(each is pool for each in aiopool.pools()) for pool in pools) == 2
    aiopool.cleanup()
    assert [pool.stats().cycles for pool in pools] == [1, 1]
    del pools[0], pool
    assert any(each is pools[0] for each in aiopool.pools())


def test_submodules_are_imported_on_first_use(aiopool):
    assert aiopool.streams.start_server
    assert aiopool.testing.isolated
    with pytest.raises(AttributeError, match="no attribute 'stream'"):
        aiopool.stream  # noqa: B018
