"""`FedReader`: testing handlers of streams without a socket."""

import asyncio

import pytest


async def handler(reader):
    """Read a length on a line, then that many bytes."""
    length = int(await reader.readline())
    return await reader.readexactly(length)


@pytest.mark.parametrize("results", [memoryview, bytes])
def test_a_handler_is_fed_piece_by_piece(aiopool, results):
    async def main():
        reader = aiopool.testing.FedReader(results=results)
        handling = asyncio.create_task(handler(reader))
        for piece in (b"1", b"0\n01234", b"5678", bytearray(b"9 and more")):
            assert not handling.done()
            reader.feed_data(piece)
            await asyncio.sleep(0.001)
        result = await handling
        assert type(result) is results
        assert result == b"0123456789"
        assert reader.buffered == 9
        reader.feed_eof()
        assert await reader.read() == b" and more"
        assert reader.at_eof()
        with pytest.raises(RuntimeError, match=r"^feed_data\(\) after feed_eof\(\)"):
            reader.feed_data(b"x")

    asyncio.run(main())


def test_far_more_than_the_limit_can_be_fed(aiopool):
    async def main():
        reader = aiopool.testing.FedReader(limit=100)
        reader.feed_data(bytes(300_000))
        assert len(await reader.readexactly(300_000)) == 300_000

    asyncio.run(main())


def test_a_missing_attribute_is_an_error(aiopool):
    with pytest.raises(AttributeError, match="no attribute 'FeedReader'"):
        aiopool.testing.FeedReader  # noqa: B018
