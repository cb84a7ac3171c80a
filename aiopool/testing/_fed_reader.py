"""A reader that a test feeds, without a socket, to test a stream handler on its own."""

from ..streams._reader import Result, StreamReader


class FedReader(StreamReader[Result]):
    r"""An `aiopool.streams.StreamReader` that receives the data passed to `feed_data`, and ends at `feed_eof`.

    Create it on a running loop, with the arguments of `StreamReader`. `limit` does not restrict `feed_data`.

    >>> async def first_line():
    ...     reader = testing.FedReader()
    ...     reader.feed_data(b"a line\nand the begin")
    ...     reader.feed_eof()
    ...     return await reader.readline(), bytes(await reader.read())
    >>> asyncio.run(first_line())
    (b'a line\n', b'and the begin')
    """

    __slots__ = ()

    def feed_data(self, data: bytes | bytearray | memoryview) -> None:
        """Receive `data` now, and wake a coroutine that waits for it.

        :raises RuntimeError: the stream has ended.
        """
        if self._eof:
            raise RuntimeError("feed_data() after feed_eof(): the stream has ended")
        rest = memoryview(data).cast("B")
        while rest:
            room = self.get_buffer(-1)
            nbytes = min(len(room), len(rest))
            room[:nbytes] = rest[:nbytes]
            self.buffer_updated(nbytes)
            rest = rest[nbytes:]
