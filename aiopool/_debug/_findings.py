"""The mistakes that debug mode finds: a second put, an object in use elsewhere, a descriptor shared after a fork.

The objects belong to the user, and a check must not run their code: `isinstance` on a lazy proxy creates the object
behind the proxy, and a `fileno` method may raise anything. So these functions compare types and call only the methods
of builtin types.
"""

import gc
import io
import os
import socket
from types import AsyncGeneratorType, CoroutineType, FrameType, FunctionType, GeneratorType, ModuleType
from typing import Any

from .._checks import identified
from .._core.bound_loops import current_record
from .._core.place import Place
from .._core.processor import OFF_LOOP, current_processor
from .._native import has_gil, native
from ._records import Record, record_of, warn

# --- a second put ---


def check_put(obj: Any, place: Place) -> None:
    """Raise if `obj`, which is about to be put, is already idle. Warn if a fork shared its open descriptor."""
    record = record_of(obj)
    if record is None:
        return
    if record.put is None:
        check_not_shared_over_fork(obj, record, record.got, place)
    elif _is_idle(obj, record):
        raise ValueError(_put_twice(obj, record, place))


def _is_idle(obj: object, record: Record) -> bool:
    """Whether `obj` is really in its pool, as far as can be checked.

    It was put, and no later get was recorded. But the pool may have dropped it, and a finalizer may put it again.
    """
    pool = record.pool()
    shards = [] if pool is None else [pair for store in pool._stores for pair in store.shards()]
    return any(
        held is obj
        for owner, shard in shards
        for held in [*(shard.private if _is_safe(owner) else ()), *shard.shared.copy()]
    )


def _is_safe(owner: object) -> bool:
    """Whether the private slot of `owner`'s shard may be read: in C, without a GIL, only by the owner."""
    if native is None or has_gil():
        return True
    processor, record = current_processor(), current_record()
    return owner in (OFF_LOOP if processor is None else processor.id, None if record is None else record.mark)


def _put_twice(obj: object, record: Record, place: Place) -> str:
    got = "it was never got" if record.got is None else f"it was got at {record.got}"
    return (
        f"{identified(obj)} was put already and is idle in {record.pool_name}: put at {record.put}, and once more at "
        f"{place}; {got}. Put each object once for each get"
    )


# --- objects that were never got, and are still in use elsewhere ---


def check_the_only_one(obj: object, record: Record, place: Place) -> None:
    """Warn if `obj`, which did not come from a pool, is checked out while something else still refers to it.

    This is checked at the get. At the put, the list or dict that `obj` came from may have been about to be freed, but a
    get that shares an object is certainly a mistake. References from local variables are ignored, because they may be
    harmless.
    """
    if record.got is not None:
        return
    for holder in _holders(obj, record):
        warn(
            f"{record.what}, got from {record.pool_name} at {place}, is in use elsewhere: {_described(holder)} refers "
            f"to it. It was put at {record.put}, and did not come from a pool",
            place,
        )
        return


# References from these are local variables.
_RUNNING_CODE = (FrameType, GeneratorType, CoroutineType, AsyncGeneratorType)

# From these, almost all other objects can be reached.
_OUT_OF_BOUNDS = (type, ModuleType, FunctionType)

_FAR = 1000
"""The most objects that are searched to find the parts of an object."""


def _holders(obj: object, record: Record) -> list[Any]:
    """The referrers of `obj`, except its own parts (such as a child that refers to its parent)."""
    holders = [
        each for each in gc.get_referrers(obj) if each is not record and not issubclass(type(each), _RUNNING_CODE)
    ]
    parts = _parts(obj) if holders else set()
    return [each for each in holders if id(each) not in parts]


def _parts(obj: object) -> set[int]:
    seen = {id(obj)}
    queue = [obj]
    for part in queue:  # grows during the loop
        for each in gc.get_referents(part):
            if id(each) not in seen and not issubclass(type(each), _OUT_OF_BOUNDS) and len(seen) < _FAR:
                seen.add(id(each))
                queue.append(each)
    return seen


def _described(holder: Any) -> str:
    if type(holder) is dict and "__spec__" in holder:
        return f"a global variable of {holder.get('__name__')}"
    return f"a {type(holder).__qualname__}"


# --- the child of a fork ---


def check_not_shared_over_fork(obj: object, record: Record, before: Place | None, place: Place) -> None:
    """Warn if two processes use `obj`: one that got or put it at `before`, and now this one.

    A fork copies memory, but not the kernel's objects behind descriptors, which both processes then share.
    """
    if record.process == os.getpid():
        return
    descriptor = _open_descriptor(obj)
    if descriptor is not None:
        warn(
            f"{record.what} of {record.pool_name} came over a fork with open descriptor {descriptor}, which two "
            f"processes now use: at {before} before the fork, at {place} after it. Call clear() on such a pool in the "
            "child",
            place,
        )


def _open_descriptor(obj: object) -> int | None:
    """The descriptor of `obj` or of one of its attributes. Standard streams, which processes may share, are ignored."""
    attributes = gc.get_referents(obj)
    attributes += [value for each in attributes if type(each) is dict for value in each.values()]
    for each in [obj, *attributes]:
        number = _descriptor(each)
        if number > 2:
            return number
    return None


# The objects that `open` returns, from the outermost to the innermost, and how to get the next one without using an
# attribute that a subclass may define.
_LAYERS: tuple[tuple[type, Any], ...] = (
    (io.TextIOWrapper, vars(io.TextIOWrapper)["buffer"]),
    (io.BufferedReader, vars(io.BufferedReader)["raw"]),
    (io.BufferedWriter, vars(io.BufferedWriter)["raw"]),
    (io.BufferedRandom, vars(io.BufferedRandom)["raw"]),
)


def _descriptor(obj: Any) -> int:
    """The descriptor of a socket or a file; -1 if it is closed or `obj` is neither."""
    for layer, within in _LAYERS:
        if issubclass(type(obj), layer):
            try:
                obj = within.__get__(obj)
            except (AttributeError, ValueError):
                return -1  # it was detached
    if issubclass(type(obj), socket.socket):
        return socket.socket.fileno(obj)
    if issubclass(type(obj), io.FileIO):
        try:
            return io.FileIO.fileno(obj)
        except ValueError:
            pass  # it is closed
    return -1
