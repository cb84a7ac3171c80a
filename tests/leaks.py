"""Repeats each operation of a program thousands of times, so that a leak shows as often.

It counts references to chosen objects, and memory blocks of the interpreter. It does not see what the C library itself
allocates.
"""

import gc
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from children import repeat

Operation = Callable[[], Awaitable[object] | None]


async def check_for_leaks(
    operations: Iterable[Operation], *, watched: Sequence[object], restore: Callable[[], object]
) -> None:
    """Repeat each of `operations`, and check that references to `watched` and memory blocks do not become more.

    `restore` restores the initial state, so that the same objects are idle before each count.
    """
    for operation in operations:
        restore()
        await repeat(operation, 200)
        began = time.perf_counter()
        await repeat(operation, 200)
        cost = (time.perf_counter() - began) / 200
        times = max(1000, min(100_000, int(0.05 / cost)))
        references, blocks = await _counts(watched, restore)
        restore()  # the collections were cleanup cycles
        await repeat(operation, times)
        references_after, blocks_after = await _counts(watched, restore)
        grown = [after - before for before, after in zip(references, references_after, strict=True)]
        # A leak in each repetition would show as `times`; caches and the loop cause far less.
        assert max(map(abs, grown)) < times / 20, (operation, times, grown)
        assert abs(blocks_after - blocks) < times / 10 + 200, (operation, times, blocks_after - blocks)


async def _counts(watched: Sequence[object], restore: Callable[[], object]) -> tuple[list[int], int]:
    restore()
    await repeat(_nothing, 1)
    gc.collect()
    gc.collect()
    return [sys.getrefcount(each) for each in watched], sys.getallocatedblocks()


def _nothing() -> None:
    """`repeat` waits until all is freed."""
