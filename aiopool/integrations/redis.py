"""redis-py's asyncio client on `aiopool.streams`.

    pool = redis.asyncio.ConnectionPool(connection_class=PooledConnection, host="localhost")
    client = redis.asyncio.Redis(connection_pool=pool)

The problem: asyncio's stream reader copies each value through three pieces of memory before redis-py parses it. Here
the kernel writes into pooled buffers, and redis-py gets `bytes` from them, so parsers, `decode_responses=True`,
pipelines and pub/sub work as usual.

The trade-off: redis-py reads at most 64 KiB at a time, so this saves only one copy, and the coroutine of each read.

This relies on something that redis-py does not guarantee: that the method `_connect` of its connections opens streams
with `asyncio.open_connection` and `asyncio.open_unix_connection`. The classes here use that same method, with the two
functions replaced by aiopool's. So timeouts, keepalive and all else are those of the installed version. If `_connect`
does not use the two functions, importing this module fails.
"""

import asyncio
from functools import partial
from types import FunctionType
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from .. import streams
from ._versions import check_names, check_version

check_version("redis", "5.0", "8.1")
check_names("redis", Connection._connect, ["asyncio", "open_connection"])
check_names("redis", UnixDomainSocketConnection._connect, ["asyncio", "open_unix_connection"])


class _Asyncio:
    """The module `asyncio`, with aiopool's streams."""

    open_connection = staticmethod(partial(streams.open_connection, results=bytes))
    open_unix_connection = staticmethod(partial(streams.open_unix_connection, results=bytes))

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


def _on_our_streams(connect: Any) -> Any:
    names = {**connect.__globals__, "asyncio": _Asyncio()}
    return FunctionType(connect.__code__, names, connect.__name__, connect.__defaults__, connect.__closure__)


class PooledConnection(Connection):
    """A TCP connection to Redis that receives into pooled buffers. For `connection_class=`.

    >>> pool = redis.asyncio.ConnectionPool(connection_class=PooledConnection)
    >>> redis.asyncio.Redis(connection_pool=pool).connection_pool is pool
    True
    """

    _connect = _on_our_streams(Connection._connect)


class PooledSSLConnection(SSLConnection):
    """Like `PooledConnection`, over TLS."""

    _connect = _on_our_streams(SSLConnection._connect)


class PooledUnixDomainSocketConnection(UnixDomainSocketConnection):
    """Like `PooledConnection`, over a Unix socket."""

    _connect = _on_our_streams(UnixDomainSocketConnection._connect)
