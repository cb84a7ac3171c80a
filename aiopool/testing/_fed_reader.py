"""A reader that a test feeds, without a socket: how a handler of streams is tested on its own."""

from ..streams._reader import Result, StreamReader


class FedReader(StreamReader[Result]):
    r"""An `aiopool.streams.StreamReader` that receives what `feed_data` gives it, and ends with `feed_eof`.

    It is created with the arguments of `StreamReader`, on a running loop. No limit holds `feed_data` back.

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
        """Have `data` received now; whoever waits for it is woken.

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
