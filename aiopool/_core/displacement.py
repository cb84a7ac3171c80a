"""Displacement: a block that comes back to a full pool replaces blocks that have been idle longer.

A budget filled with blocks that are no longer used is worthless: after a morning of small requests, the blocks of large
requests would be freed each time, until two cleanup cycles have passed. So if a block does not fit, blocks that have
been idle longer are freed, of any size class and any loop, starting with the one that has been idle longest. (The block
that comes back was in use until now, so every idle block has been idle longer.)

Idle time is measured by the budget's count of created blocks. A clock would give the same order, but make each put
slower. While no block is created, nothing that is idle needs to be freed.

The oldest block of a shard is at one end of its shared list, so looking at one block of each shard finds the oldest of
all, however many are idle. No lock is waited for: a shard that another thread has locked is skipped. The trade-offs:
the shard that the block comes back to is left alone, because there all blocks are equally good. And at most
`MOST_DISPLACED` blocks are freed for one, which takes about as long as creating a block, so that no loop is held up for
long. If that does not make enough room, the next block that comes back continues.
"""

import heapq
from typing import Any

from .processor import OFF_LOOP, running_processor
from .shard import Shard
from .store import Store

MOST_DISPLACED = 1024
"""How many blocks may be freed for one: enough for a block of 1 MiB to displace blocks of 1 KiB."""


def displace_for(budget: Any, store: Store, size: int) -> bool:
    """Reserve `size` bytes for a block of `store` by freeing idle blocks. Returns `False` if there is no room."""
    if size > budget.limit:
        return False
    own, others = _oldest_of_each(budget, store)
    for _ in range(MOST_DISPLACED):
        if not others or (own is not None and own <= others[0][0]):
            break
        block = _take_oldest(others[0][-1])
        if block is None:
            heapq.heappop(others)
            continue
        block.displace()
        _look_again(others)
        if budget.reserve(size):
            return True
    return False


# When the shard's oldest block became idle, minus its size, a number that breaks ties, and the shard. Among equally old
# blocks, one large block is freed rather than many small ones.
_Candidate = tuple[int, int, int, Shard]


def _oldest_of_each(budget: Any, store: Store) -> tuple[int | None, list[_Candidate]]:
    """When the oldest block of the running processor's own shard became idle, and a heap of all other shards."""
    processor = running_processor()
    id = OFF_LOOP if processor is None else processor.id
    own: int | None = None
    others: list[_Candidate] = []
    for each in budget.stores():
        if not each.primary and not each.victim:
            continue
        for owner, shard in each.shards():
            block = _oldest(shard)
            if block is None:
                continue
            if each is store and owner == id:
                own = block.idle_since if own is None else min(own, block.idle_since)
            else:
                others.append((block.idle_since, -block.size, len(others), shard))
    heapq.heapify(others)
    return own, others


def _look_again(candidates: list[_Candidate]) -> None:
    """Update the first candidate, whose oldest block was taken."""
    _, _, number, shard = candidates[0]
    block = _oldest(shard)
    if block is None:
        heapq.heappop(candidates)
    else:
        heapq.heapreplace(candidates, (block.idle_since, -block.size, number, shard))


def _oldest(shard: Shard) -> Any:
    """The block of `shard` that has been idle longest; `None` if it has none."""
    for blocks in (shard.shared, shard.private):
        try:
            return blocks[0]
        except IndexError:
            pass  # it is empty, or was emptied meanwhile
    return None


def _take_oldest(shard: Shard) -> Any:
    """Take that block; `None` if there is none, or if another thread has locked the shared list."""
    if shard.shared:
        return shard.take_oldest()
    return shard.take_private()  # safe from any thread here: each thread, even the owner, takes with one C call
