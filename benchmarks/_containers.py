"""Ways to keep objects without a pool: a list, the standard library's queues, or creating objects each time.

The list pair, `list.pop()` + `list.append()`, is the unit of `get_put.py`: Python has no cheaper way to keep an object.

What could make the figures misleading: a fresh bytearray is freed before the next one is created, so malloc hands out
the same warm memory every time. A server that holds many at once pays more. And a fresh bytearray is zero, while a
pooled one holds what its last user wrote; for a program that must clear it, that is an extra cost.
"""

from collections import deque
from itertools import repeat
from queue import LifoQueue, SimpleQueue

from _timing import IN_FLIGHT, Candidate, Repeat


async def list_pair(n: int) -> None:
    items = [object()]
    for _ in repeat(None, n):
        obj = items.pop()
        items.append(obj)


async def list_in_flight(n: int) -> None:
    items = [object() for _ in range(IN_FLIGHT)]
    for _ in repeat(None, n):
        for obj in [items.pop() for _ in range(IN_FLIGHT)]:
            items.append(obj)


async def empty_loop(n: int) -> None:
    for _ in repeat(None, n):
        pass


async def deque_pair(n: int) -> None:
    items = deque([object()])
    for _ in repeat(None, n):
        obj = items.pop()
        items.append(obj)


async def simple_queue(n: int) -> None:
    queue: SimpleQueue[object] = SimpleQueue()
    queue.put(object())
    for _ in repeat(None, n):
        obj = queue.get_nowait()
        queue.put(obj)


async def lifo_queue(n: int) -> None:
    queue: LifoQueue[object] = LifoQueue()
    queue.put(object())
    for _ in repeat(None, n):
        obj = queue.get(block=False)
        queue.put(obj)


def fresh_bytearray(size: int) -> Repeat:
    async def create(n: int) -> None:
        for _ in repeat(None, n):
            bytearray(size)

    return create


LIST = Candidate("list.pop + append", list_pair)
LIST_IN_FLIGHT = Candidate(f"list.pop + append, {IN_FLIGHT} in flight", list_in_flight, operations=IN_FLIGHT)
EMPTY_LOOP = Candidate("empty loop (part of every row)", empty_loop)
QUEUES = [
    Candidate("collections.deque", deque_pair),
    Candidate("queue.SimpleQueue", simple_queue),
    Candidate("queue.LifoQueue", lifo_queue),
]
FRESH = {
    f"{kib:,} KiB": Candidate(f"a fresh bytearray of {kib:,} KiB", fresh_bytearray(kib * 1024))
    for kib in (1, 4, 64, 256, 1024)
}
