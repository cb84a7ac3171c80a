"""What a block that comes back to a full pool displaces.

A budget that is full of what is not used any more is worth nothing: after a morning of small requests the blocks of
large ones would be freed each time, until two cleanup cycles have passed. So a block that does not fit frees blocks
that have been idle longer, of any size class and any loop. The block that comes back was used last of all, so every
idle block has been idle longer; the one that has been idle longest goes first.

How long is told by a number that the budget counts up with each block that is created. A clock would say the same, and
cost each put more. While no block is created nothing that is idle need go.

The oldest block of a shard is at one end of its shared list, so one look at each shard finds the oldest of all, however
many are idle. No lock is waited for: a shard that another thread has locked is passed over. The trade-offs: the shard
that the block comes back to is left alone, for there one block is as good as another. And at most `MOST_DISPLACED`
blocks make room for one, so that no loop is held up for longer than it takes about to create a block; where that is not
enough, the next block that comes back goes on.
"""

import heapq
from typing import Any

from .processor import OFF_LOOP, running_processor
from .shard import Shard
from .store import Store

MOST_DISPLACED = 1024
"""How many blocks may make room for one: enough for a block of 1 MiB among those of 1 KiB."""


def displace_for(budget: Any, store: Store, size: int) -> bool:
    """Reserve `size` bytes for a block of `store`, after freeing idle blocks. `False`: there is no room for it."""
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


# When the oldest block came, minus its size, a number to tell equals apart, and the shard. Of those that came at the
# same time, one large goes instead of many small.
_Candidate = tuple[int, int, int, Shard]


def _oldest_of_each(budget: Any, store: Store) -> tuple[int | None, list[_Candidate]]:
    """When the oldest block of the asker's own shard came; and a heap of all other shards."""
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
    """The oldest block of the first candidate's shard has gone."""
    _, _, number, shard = candidates[0]
    block = _oldest(shard)
    if block is None:
        heapq.heappop(candidates)
    else:
        heapq.heapreplace(candidates, (block.idle_since, -block.size, number, shard))


def _oldest(shard: Shard) -> Any:
    """The block that has been idle longest there; `None`: none is."""
    for blocks in (shard.shared, shard.private):
        try:
            return blocks[0]
        except IndexError:
            pass  # it is empty, or was emptied since
    return None


def _take_oldest(shard: Shard) -> Any:
    """Take it out; `None`: none is idle, or another thread has the lock of the shared list."""
    if shard.shared:
        return shard.take_oldest()
    return shard.take_private()  # any thread may: it is one C call, as the owner's own
