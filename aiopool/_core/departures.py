"""How the retired objects of a loop-bound store are freed: on their own loop, in slices.

Each store has shards of its own for each loop, and many may be retired at once. If each freed a slice of its own in the
same turn of the loop, a hundred pools that are cleared together would stop it for a tenth of a second. So the shards of
all stores wait in one queue for each loop, and one callback frees them.
"""

import weakref
from collections import deque
from functools import partial

from .freeing import Slice, free_each
from .loops import LiveLoop
from .posted import waits
from .shard import Shard


class Departures:
    """Retired shards of one loop, which frees them in slices: one slice in each of its turns, for all stores."""

    __slots__ = ("_loop", "_posted", "_shards")

    def __init__(self, loop: LiveLoop) -> None:
        self._loop = loop
        self._shards: deque[Shard] = deque()
        self._posted: weakref.ref[_Departing] | None = None

    def add(self, shard: Shard) -> bool:
        """Have the loop free `shard`. Returns `False` if it is not running. Thread-safe."""
        self._shards.append(shard)
        if self.post():
            return True
        try:
            self._shards.remove(shard)
        except ValueError:
            return True  # the loop took it, and ended only then
        return False

    def post(self) -> bool:
        """Have the loop free a slice soon. Returns `False` if it is not running."""
        if self._loop.is_running() and waits(self._posted, self._loop):
            return True
        departing = _Departing(self._loop, self)
        self._posted = weakref.ref(departing)
        return departing.post()

    def free_until(self, deadline: float) -> None:
        """Free until `deadline`. Call on the loop, because only there may private objects be taken."""
        while self._shards:
            shard = self._shards.popleft()
            if not free_each(partial(_free_any, shard), deadline):
                self._shards.appendleft(shard)
                break

    def continue_later(self) -> None:
        """Post again if anything is left."""
        if self._shards:
            self.post()


def _free_any(shard: Shard) -> bool:
    return shard.take_private() is not None or shard.free_newest()


class _Departing(Slice):
    """Frees a slice of the retired shards of one loop. A loop that ends first frees them when it drops its record."""

    __slots__ = ("_departures",)

    def __init__(self, loop: LiveLoop, departures: Departures) -> None:
        super().__init__(loop)
        self._departures = departures

    def run(self) -> None:
        self._departures.free_until(self.deadline())
        self._departures.continue_later()

    def dropped(self) -> None:
        self._departures.continue_later()


class Departure:
    """A retired shard whose objects are to be freed on their own loop.

    The queue of retired objects treats it as a shard; but instead of being freed there, it is passed to its loop.
    """

    __slots__ = ("_departures", "_shard")

    def __init__(self, departures: Departures, shard: Shard) -> None:
        self._departures = departures
        self._shard = shard

    def __len__(self) -> int:
        return len(self._shard)

    def free_newest(self) -> bool:
        """Have the loop free all objects; if it is not running, free one shared object here.

        Returns `False` if nothing is left to do here.
        """
        return not self._departures.add(self._shard) and self._shard.free_newest()
