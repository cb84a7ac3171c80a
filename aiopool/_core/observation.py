"""Whether anything observes what is got and put: the debug mode.

Observing costs nothing while it is off. A fast path finds its shard in a mapping that is empty while an observer is
there, so that every get and put falls through to the slow path, and only that asks for the observer. Methods that were
bound before are observed too, because it is the store that changes and not the methods.
"""

from typing import Any, ClassVar, Protocol

from .registry import pools, register, stores_of


class Observer(Protocol):
    """What the slow paths of pools tell. `pool` is the user's pool; what a call raises reaches the pool's caller."""

    def created(self, pool: Any) -> None:
        """`pool` was made: none of its gets and puts has gone unseen."""

    def got(self, pool: Any, obj: Any) -> None:
        """`obj` is checked out, from now on."""

    def putting(self, pool: Any, obj: Any) -> None:
        """`obj` is about to be put. If this raises, it is not."""

    def not_kept(self, pool: Any, obj: Any) -> None:
        """`obj` came back and was not kept; or it never will come back, because a block that borrowed it raised."""


class Observation:
    """The current observer. A class, because that is read without writing to a reference count that threads share."""

    observer: ClassVar[Observer | None] = None


def observe(observer: Observer | None) -> None:
    """Have all gets and puts observed from now on; `None`: no more."""
    Observation.observer = observer
    for store in stores_of(pools()):
        store.observe(observer is not None)


def introduce(pool: Any) -> None:
    """`pool` was just made: register it, and have it observed if an observer is there."""
    register(pool)
    observer = Observation.observer
    if observer is not None:
        observer.created(pool)
    # Read again: an observer that came after the registration has told the stores itself.
    for store in pool._stores:
        store.observe(Observation.observer is not None)
