"""Views are in reference cycles with their pool."""

import aiopool


class Node:
    """Refers to itself."""


pool = aiopool.BufferPool()
pool.acquire(10)
for n in (10, 1000, 100_000):
    node = Node()
    node.itself, node.view, node.pool = node, pool.acquire(n), pool
print("ok")
