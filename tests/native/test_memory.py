"""Large blocks have mappings of their own: fresh ones are cheap, and what is freed goes back to the system at once."""

import asyncio
import mmap
import random
import sys
import tracemalloc
from pathlib import Path

import pytest
from children import run_child

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
def mapping(aiopool):
    """The package, where large blocks have mappings."""
    if aiopool.implementation == "python" or not sys.platform.startswith("linux"):
        pytest.skip("the C extension does this, on Linux")
    return aiopool


def resident():
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def mapping_of(view):
    """What the system says of the mapping in which the first byte lies."""
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


def test_smaller_ones_do_not(mapping):
    pool = mapping.BufferPool()
    for n in (64 * KIB, MIB, 3 * MIB):
        view = pool.acquire(n)
        assert "hg" not in mapping_of(view)["VmFlags"].split()


@pytest.mark.parametrize("n", [64 * KIB - 1, 64 * KIB, 65 * KIB, MIB, 4 * MIB, 5 * MIB + 1, 20 * MIB + 1])
@pytest.mark.parametrize("max_idle_bytes", [0, 1 << 30])
def test_all_of_it_can_be_used_again_and_again(aiopool, n, max_idle_bytes):
    pool = aiopool.BufferPool(max_idle_bytes=max_idle_bytes, wipe=True)
    for mark in (b"a", b"b", b"c"):
        views = [pool.acquire(n) for _ in range(3)]
        assert not any(view[at] for view in views for at in (0, n // 2, n - 1))
        for view in views:
            view[:] = mark * n
        assert all(bytes(view) == mark * n for view in views)
        del view, views


def test_what_is_freed_goes_back_to_the_system_whatever_the_order(mapping):
    """Without a trim, although something small was allocated last."""
    pool = mapping.BufferPool(max_idle_bytes=1 << 30)
    before = resident()

    async def main():
        held = [pool.acquire(64 * KIB) for _ in range(2000)]
        for view in held:
            view[:: mmap.PAGESIZE] = bytes(64 * KIB // mmap.PAGESIZE)
        del view
        assert resident() - before > 80 * MIB  # of 125; what earlier tests left may be freed meanwhile
        random.Random(1).shuffle(held)
        while held:
            held.pop()
        kept = [bytearray(5000) for _ in range(10)]
        mapping.cleanup()
        mapping.cleanup()
        while pool._budget.used:
            await asyncio.sleep(0)
        return kept

    asyncio.run(main())
    assert resident() - before < 12 * MIB


def test_the_last_mapping_that_there_may_be_is_not_needed(mapping, child_env):
    """Beyond 32,768 blocks the rest come from malloc: a process may have about 65,530 mappings."""
    program = """
import random
from pathlib import Path
import aiopool
pool = aiopool.BufferPool(max_idle_bytes=1 << 40)
held = [pool.acquire(64 * 1024) for _ in range(34_000)]
for view in held[:100] + held[-100:]:
    view[:5] = b"hello"
random.shuffle(held)
del held[::2]
del view
assert len(Path("/proc/self/maps").read_text().splitlines()) < 40_000
pool.clear()
held.clear()
pool.clear()
print("ok")
"""
    assert run_child(program, child_env) == "ok\n"


def test_tracemalloc_sees_it(mapping):
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        view = mapping.BufferPool().acquire(8 * MIB)
        assert tracemalloc.get_traced_memory()[0] - before >= 8 * MIB
        view.release()
        del view
    finally:
        tracemalloc.stop()


def test_more_than_there_is_raises(aiopool):
    pool = aiopool.BufferPool(max_size=1 << 62)
    for n in (1 << 60, 1 << 62, sys.maxsize, sys.maxsize - 4096):
        with pytest.raises(MemoryError, match=str(n)):
            pool.acquire(n)
    assert pool.stats().bytes_in_use == 0
