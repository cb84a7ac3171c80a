"""Large blocks have their own mappings: new ones are cheap, and freed ones go back to the system at once."""

import asyncio
import random
import sys
import tracemalloc
from bisect import bisect_right
from pathlib import Path

import pytest
from children import run_program
from shared import KIB, MIB


@pytest.fixture
def mapping(aiopool):
    """The package, if its large blocks have mappings."""
    if aiopool.implementation == "python" or not sys.platform.startswith("linux"):
        pytest.skip("the C extension does this, on Linux")
    return aiopool


def mapping_of(view):
    """The system's information on the mapping that contains the first byte."""
    numpy = pytest.importorskip("numpy")
    start = numpy.frombuffer(view, "u1").ctypes.data
    lines = Path("/proc/self/smaps").read_text().splitlines()
    found = {}
    for line in lines:
        key, _, rest = line.partition(" ")
        if "-" in key and not key.endswith(":"):
            low, high = (int(each, 16) for each in key.split("-"))
            inside = low <= start < high
            if inside:
                found = {"size": high - start, "start": start}
        elif found and inside:
            found[key.rstrip(":")] = rest.strip()
    return found


@pytest.mark.parametrize("n", [4 * MIB, 5 * MIB, 16 * MIB, 17 * MIB + 1])
def test_from_4_mib_on_a_block_asks_for_huge_pages(mapping, n):
    view = mapping.BufferPool().acquire(n)
    about = mapping_of(view)
    assert "hg" in about["VmFlags"].split(), about
    assert about["start"] % (2 * MIB) == 0


def test_smaller_blocks_do_not_ask_for_huge_pages(mapping):
    pool = mapping.BufferPool()
    for n in (64 * KIB, MIB, 3 * MIB):
        view = pool.acquire(n)
        assert "hg" not in mapping_of(view)["VmFlags"].split()


@pytest.mark.parametrize("n", [64 * KIB - 1, 64 * KIB, 65 * KIB, MIB, 4 * MIB, 5 * MIB + 1, 20 * MIB + 1])
@pytest.mark.parametrize("max_idle_bytes", [0, 1 << 30])
def test_every_byte_of_a_mapping_can_be_reused(aiopool, n, max_idle_bytes):
    pool = aiopool.BufferPool(max_idle_bytes=max_idle_bytes, wipe=True)
    for mark in (b"a", b"b", b"c"):
        views = [pool.acquire(n) for _ in range(3)]
        assert not any(view[at] for view in views for at in (0, n // 2, n - 1))
        for view in views:
            view[:] = mark * n
        assert all(bytes(view) == mark * n for view in views)
        del view, views


def still_mapped(addresses):
    """How many of `addresses` lie in a mapping of this process."""
    ranges = [line.partition(" ")[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
    starts, ends = zip(*[(int(start, 16), int(end, 16)) for start, end in ranges], strict=True)
    return sum(address < ends[bisect_right(starts, address) - 1] for address in addresses)


def test_freed_blocks_go_back_to_the_system_in_any_order(mapping):
    """No trim of the heap is needed, even if something small was allocated last."""
    pool = mapping.BufferPool(max_idle_bytes=1 << 30)
    numpy = pytest.importorskip("numpy")

    async def main():
        held = [pool.acquire(64 * KIB) for _ in range(2000)]
        addresses = [numpy.frombuffer(view, "u1").ctypes.data for view in held]
        random.Random(1).shuffle(held)
        while held:
            held.pop()
        assert pool.stats().bytes_idle == 2000 * 64 * KIB
        assert still_mapped(addresses) == 2000
        kept = [bytearray(5000) for _ in range(10)]
        mapping.cleanup()
        mapping.cleanup()
        while pool._budget.used:
            await asyncio.sleep(0)
        return still_mapped(addresses), kept

    # Other mappings may now lie where a few of them were.
    assert asyncio.run(main())[0] < 200


def test_beyond_a_number_of_mappings_blocks_come_from_malloc(mapping, child_env):
    assert run_program("many_mappings.py", child_env) == "ok\n"


def test_tracemalloc_sees_mapped_blocks(mapping):
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        view = mapping.BufferPool().acquire(8 * MIB)
        assert tracemalloc.get_traced_memory()[0] - before >= 8 * MIB
        view.release()
        del view
    finally:
        tracemalloc.stop()


def test_more_memory_than_there_is_raises(aiopool):
    pool = aiopool.BufferPool(max_size=1 << 62)
    for n in (1 << 60, 1 << 62, sys.maxsize, sys.maxsize - 4096):
        with pytest.raises(MemoryError, match=str(n)):
            pool.acquire(n)
    assert pool.stats().bytes_in_use == 0
