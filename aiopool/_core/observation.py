"""The observer of all gets and puts: how the debug mode sees them.

Observation costs nothing while it is off. The fast paths look for their shard in a mapping that is empty while an
observer is set, so every get and put falls through to the slow path, and only the slow path looks for an observer.
Bound methods that a program stored earlier are observed too, because the store changes and not the methods.
"""

from typing import Any, ClassVar, Protocol

from .registry import all_stores, register


class Observer(Protocol):
    """Called by the slow paths. `pool` is the user's pool; an exception raised here reaches the pool's caller."""

    def created(self, pool: Any) -> None:
        """`pool` was just created, so all its gets and puts will be observed."""

    def got(self, pool: Any, obj: Any) -> None:
        """`obj` is now checked out."""

    def putting(self, pool: Any, obj: Any) -> None:
        """`obj` is about to be put. If this raises, it is not put."""

    def not_kept(self, pool: Any, obj: Any) -> None:
        """`obj` was put and not kept; or it will never be put, because the block that borrowed it raised."""


class Observation:
    """Holds the current observer. A class attribute is read without writing to a reference count that threads share."""

    observer: ClassVar[Observer | None] = None


def observe(observer: Observer | None) -> None:
    """Set the observer of all gets and puts; `None` ends observation."""
    Observation.observer = observer
    for store in all_stores():
        store.observe(observer is not None)


def introduce(pool: Any) -> None:
    """Register `pool`, which was just created, and have it observed if there is an observer."""
    register(pool)
    observer = Observation.observer
    if observer is not None:
        observer.created(pool)
    # Read the observer again, because it may have changed after the registration.
    for store in pool._stores:
        store.observe(Observation.observer is not None)
