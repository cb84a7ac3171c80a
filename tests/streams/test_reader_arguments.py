"""Arguments of the reader of `aiopool.streams`, valid and invalid: an invalid one loses nothing."""

import asyncio
import random

import pytest
from feeding import Reading, feed, read_now
from shared import KIB


def test_an_absurd_length_is_rejected_before_anything_is_allocated(aiopool, loop):
    buffers = aiopool.BufferPool(max_size=1024 * KIB)
    reader = aiopool.streams.StreamReader(buffers, limit=64 * KIB, loop=loop)
    for n in (1024 * KIB + 1, 1 << 40, 1 << 100):
        with pytest.raises(asyncio.LimitOverrunError, match=rf"^{n} bytes are more than max_size \(1048576\)"):
            read_now(reader.readexactly(n))
    assert buffers.stats().served == 0
    feed(reader, b"all the same")
    assert read_now(reader.read(20)) == b"all the same"
    large = aiopool.streams.StreamReader(buffers, limit=2048 * KIB, loop=loop)
    assert not Reading(large.readexactly(2048 * KIB)).done


def test_a_reader_says_what_is_wrong_with_its_arguments(aiopool, reader, buffers, loop):
    streams = aiopool.streams
    for limit, error, message in [
        (0, ValueError, "limit must be more than 0 bytes"),
        (-1, ValueError, "limit must not be negative, but is -1"),
        ("x", TypeError, "limit must be an integer, not 'x'"),
    ]:
        with pytest.raises(error, match=message):
            streams.StreamReader(buffers, limit=limit, loop=loop)
    with pytest.raises(TypeError, match="buffers must be a BufferPool, not 5"):
        streams.StreamReader(5, loop=loop)
    feed(reader, b"untouched")
    with pytest.raises(ValueError, match="n must not be negative, but is -1"):
        read_now(reader.readexactly(-1))
    with pytest.raises(TypeError):
        read_now(reader.readexactly("x"))
    for separator in ((), b"", (b"x", b"")):
        with pytest.raises(ValueError, match="separators of at least one byte"):
            read_now(reader.readuntil(separator))
    for separator in ("x", 5, [b"x"], (b"x", "y"), None):
        with pytest.raises(TypeError, match="takes bytes or a tuple of bytes, not"):
            read_now(reader.readuntil(separator))
    with pytest.raises(TypeError, match=r"takes a writable buffer, not b'x'"):
        read_now(reader.readinto(b"x"))
    with pytest.raises(TypeError):
        read_now(reader.readinto(memoryview(bytearray(10))[::2]))
    assert read_now(reader.read(20)) == b"untouched"


def test_readinto_takes_any_writable_bytes(reader):
    import array

    numbers = array.array("I", [0, 0])
    feed(reader, bytes(range(8)))
    assert read_now(reader.readinto(numbers)) == 8
    assert numbers.tobytes() == bytes(range(8))
    assert read_now(reader.readinto(bytearray())) == 0


def test_separators_of_several_lengths(reader):
    """The separator that ends first wins, and the shortest of those that end together."""
    feed(reader, b"one--two=-three-=four")
    assert read_now(reader.readuntil((b"--", b"=", b"-="))) == b"one--"
    assert read_now(reader.readuntil((b"--", b"=-", b"="))) == b"two="
    assert read_now(reader.readuntil((b"-=f", b"three-="))) == b"-three-="
    assert read_now(reader.readuntil(memoryview(b"u"))) == b"fou"


@pytest.mark.parametrize("read", ["readexactly", "read"])
def test_a_numpy_integer_is_a_valid_length(reader, read):
    """A position plus a number of 8 or 16 bits overflows."""
    numpy = pytest.importorskip("numpy")
    data = random.Random(1).randbytes(70_000)
    feed(reader, data)
    assert read_now(reader.readexactly(100)) == data[:100]
    assert read_now(getattr(reader, read)(numpy.uint8(200))) == data[100:300]
    assert read_now(reader.readexactly(numpy.uint16(60_000))) == data[300:60_300]
    assert read_now(reader.readexactly(9_700)) == data[60_300:]


def test_a_length_with_thousands_of_digits_is_rejected(reader):
    with pytest.raises(asyncio.LimitOverrunError):
        read_now(reader.readexactly(1 << 80_000))


@pytest.mark.parametrize("call", ["read(1, 2)", "readexactly()", "readexactly(m=5)", "readline(5)", "readuntil(n=3)"])
def test_wrong_arguments_raise_at_the_call(reader, call):
    with pytest.raises(TypeError, match=r"argument|positional"):
        eval(f"reader.{call}", {"reader": reader})


def test_arguments_by_name(reader):
    feed(reader, b"0123456789\nline|")
    assert read_now(reader.read(n=3)) == b"012"
    assert read_now(reader.readexactly(n=2)) == b"34"
    assert read_now(reader.readuntil()) == b"56789\n"
    assert read_now(reader.readuntil(separator=b"|")) == b"line|"
