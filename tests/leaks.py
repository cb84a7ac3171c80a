"""A program's operations, each repeated some thousand times: what one of them leaks shows as often.

References to chosen objects are counted, and the memory blocks of the interpreter. What the C library allocates by
itself is not seen.
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
    """Repeat each of `operations`, and see that neither references to `watched` nor memory blocks become more.

    `restore` has everything as it was at first: the same objects are idle before each count.
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
        # One kept for each repetition would show as `times`; what caches and the loop do is far below this.
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
