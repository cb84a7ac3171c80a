"""Finalizers and other threads interrupt an acquire and a drop between any two bytecodes."""

import sys

import pytest
from interrupts import at_every_bytecode, core_files
from shared import KIB


def fill(pool, mark, count):
    """Views from `pool`, filled with `mark`."""
    views = [pool.acquire(1000) for _ in range(count)]
    for view in views:
        view[:] = mark * 1000
    return views


INTERRUPTED = core_files("block", "idle_budget", "shard", "size_class", "store")
INTERRUPTED += ("_buffer_pool.py",)

INTRUSIONS = {
    "acquire and drop": lambda package, pool: fill(pool, b"B", 2).clear(),
    "acquire and keep": lambda package, pool: fill(pool, b"B", 2),
    "clean up": lambda package, pool: [package.cleanup(), package.cleanup()].clear(),
    "clear": lambda package, pool: [pool.clear()].clear(),
}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python code cannot export buffers before 3.12")
@pytest.mark.parametrize("intrusion", INTRUSIONS)
@pytest.mark.parametrize("operation", ["first", "acquire", "drop"])
def test_interruptions_at_every_bytecode(reference, operation, intrusion):
    """A finalizer or another thread uses the pool between any two bytecodes of an acquire and of a drop."""

    def scenario():
        pool = reference.BufferPool(max_idle_bytes=4 * KIB, wipe=intrusion == "acquire and drop")
        if operation != "first":
            pool.acquire(1000)
        box = fill(pool, b"A", 1) if operation == "drop" else []

        def operate():
            return box.pop().release() if box else fill(pool, b"A", 1)

        def check(mine, others):
            third = fill(pool, b"C", 4)
            for views, mark in (mine, b"A"), (others, b"B"), (third, b"C"):
                assert all(bytes(view) == mark * 1000 for view in views or [])
            assert sum(len(shard) for shard in pool._size_classes[0].store.primary.values()) <= 4

        return operate, lambda: INTRUSIONS[intrusion](reference, pool), check

    interruptions = at_every_bytecode(scenario, files=INTERRUPTED)
    assert interruptions > 50


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python code cannot export buffers before 3.12")
def test_interruptions_break_an_exporter_that_puts_first(reference, monkeypatch):
    """A negative control, which puts the block before it zeroes it."""

    def put_first(self, view):
        content, known, n, _ = self
        if (size_class := known()) is not None:
            size_class.take_back(content)
        view[:] = bytes(n)
        view.release()

    monkeypatch.setattr(reference._core.block._Exporter, "__release_buffer__", put_first)
    with pytest.raises(AssertionError):
        test_interruptions_at_every_bytecode(reference, "drop", "acquire and keep")
