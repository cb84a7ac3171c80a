"""Loops that steal from the shared lists of donors, loops that only put objects."""

from itertools import repeat

from _loop_threads import TURNS, LoopThread
from _scaling_case import Case

from aiopool import Pool


class Stealing(Case):
    """Gets that find nothing in their own shard, because the loops of `donors` have put all objects."""

    most = TURNS

    def __init__(self, name: str, donors: list[LoopThread]) -> None:
        super().__init__(name, self.steal)
        self._donors = donors
        self._pool: Pool[object | None] = Pool()
        # Kept, so that a get does not free its object.
        self._objects: list[object] = []
        self._donated = 0

    def prepare(self, loops: int, n: int) -> None:
        # Each donor has enough for its part of the stealing loops, and at least for one of them. One more, because the
        # object in the private slot cannot be stolen.
        each = max(n, -(-n * loops // len(self._donors))) + 1
        self._donated = each * len(self._donors)
        self._objects.extend(object() for _ in range(self._donated - len(self._objects)))
        self._pool = Pool()
        for i, donor in enumerate(self._donors):
            donor.run(self._put(self._objects[i * each : (i + 1) * each]))

    async def _put(self, objects: list[object]) -> None:
        for obj in objects:
            self._pool.put(obj)

    async def steal(self, n: int) -> None:
        for _ in repeat(None, n):
            self._pool.get()

    def succeeded(self, n: int) -> float:
        """A get that meets another steal may find nothing."""
        return (self._donated - self._pool.clear()) / n
