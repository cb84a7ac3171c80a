"""What the debug mode looks for: a second put, an object in use elsewhere, a descriptor shared over a fork.

The objects are the user's, and a check must not run their code: `isinstance` asks a lazy proxy for its class, and so
creates what it stands for; a `fileno` may raise anything. So types are compared, and methods are those of the builtin
types.
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
    """Raise if `obj`, which is about to be put, is idle. Warn if it came over a fork with an open descriptor."""
    record = record_of(obj)
    if record is None:
        return
    if record.put is None:
        check_not_shared_over_fork(obj, record, record.got, place)
    elif _is_idle(obj, record):
        raise ValueError(_put_twice(obj, record, place))


def _is_idle(obj: object, record: Record) -> bool:
    """Whether `obj` really is in its pool, as far as can be seen.

    It was put and no get of it was seen. But the pool may have dropped it, and then a finalizer may put it again.
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
    """Warn if `obj`, which came from outside, is handed out while something still refers to it.

    Only now: when it was put, the list or the dict that it came from may have been about to be freed. A get that shares
    an object is a fact. References from local variables cannot be told from harmless ones.
    """
    if record.got is not None:
        return
    for holder in _holders(obj, record):
        warn(
            f"{record.what}, got from {record.pool_name} at {place}, is in use elsewhere: {_described(holder)} refers "
            f"to it. It was put at {record.put}, and had not come from a pool",
            place,
        )
        return


# Their references are local variables.
_RUNNING_CODE = (FrameType, GeneratorType, CoroutineType, AsyncGeneratorType)

# These lead from any object to almost everything else.
_OUT_OF_BOUNDS = (type, ModuleType, FunctionType)

_FAR = 1000
"""How many objects are searched to find the parts of an object."""


def _holders(obj: object, record: Record) -> list[Any]:
    """The referrers of `obj` that are not its own parts, such as a child that knows its parent."""
    holders = [
        each for each in gc.get_referrers(obj) if each is not record and not issubclass(type(each), _RUNNING_CODE)
    ]
    parts = _parts(obj) if holders else set()
    return [each for each in holders if id(each) not in parts]


def _parts(obj: object) -> set[int]:
    seen = {id(obj)}
    queue = [obj]
    for part in queue:  # it grows
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
    """Warn if `obj` is used by two processes: by one that got or put it at `before`, and now by this one.

    A fork copies memory, so that each process has its own. It does not copy what a descriptor refers to in the kernel.
    """
    if record.process == os.getpid():
        return
    descriptor = _open_descriptor(obj)
    if descriptor is not None:
        warn(
            f"{record.what} of {record.pool_name} came over a fork with open descriptor {descriptor}, which two "
            f"processes now use: at {before} before the fork, at {place} after it. clear() such a pool in the child",
            place,
        )


def _open_descriptor(obj: object) -> int | None:
    """The descriptor of `obj` or of one of its attributes; standard streams, which processes share, do not count."""
    attributes = gc.get_referents(obj)
    attributes += [value for each in attributes if type(each) is dict for value in each.values()]
    for each in [obj, *attributes]:
        number = _descriptor(each)
        if number > 2:
            return number
    return None


# What `open` returns, from the outside to the inside, and how to reach the next without an attribute of a subclass.
_LAYERS: tuple[tuple[type, Any], ...] = (
    (io.TextIOWrapper, vars(io.TextIOWrapper)["buffer"]),
    (io.BufferedReader, vars(io.BufferedReader)["raw"]),
    (io.BufferedWriter, vars(io.BufferedWriter)["raw"]),
    (io.BufferedRandom, vars(io.BufferedRandom)["raw"]),
)


def _descriptor(obj: Any) -> int:
    """The descriptor of a socket or a file; -1: it is closed, or `obj` is neither."""
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
