"""Debug mode: finds what is wrong in how a program uses its pools, and says where.

It comes on with `AIOPOOL_DEBUG` in the environment, or when a pool is first used on an asyncio loop that is in debug
mode itself. Then other methods take the place of `Pool.get`, `Pool.put` and `Pool._abandon`. So while it is off, the
hot path is the same code as if there were no debug mode: nothing asks whether it is on.

What is certain is an error: an object that is put while it is idle. What may be meant, or is found when nobody is there
to catch an exception, is a `ResourceWarning`. Both name the two places that do not fit together.

A pool that was there before the debug mode has lent objects that nobody saw; and a bound method, such as
`get = pool.get` above a loop, goes on as what it was. So what is reported of such a pool is looked at twice.
"""

import asyncio
import atexit
import gc
import os
import sys
import warnings
import weakref
from collections.abc import Callable
from functools import update_wrapper
from types import AsyncGeneratorType, CoroutineType, FrameType, FunctionType, GeneratorType, ModuleType
from typing import Any

from . import _loans, _processor
from ._checks import shown
from ._collector import pools
from ._implementation import has_gil, native
from ._loans import Entry, Place, caller, warn
from ._pool import Pool
from .aio import AsyncPool

_on = False

# The pools that were made since: nothing of what they do went unseen.
_newer: "weakref.WeakSet[Pool[Any]]" = weakref.WeakSet()

# The others, and how many of their puts were seen or came before.
_older: "weakref.WeakKeyDictionary[Pool[Any], int]" = weakref.WeakKeyDictionary()


def is_on() -> bool:
    """Whether the debug mode is on."""
    return _on


def turn_on() -> None:
    """From now on see every get and every put, of all pools."""
    global _on
    if _on:
        return
    _on = True
    for pool in pools():
        within = pool._idle if isinstance(pool, AsyncPool) else pool
        if isinstance(within, Pool):
            _older[within] = pool.stats().puts
    _loans.is_sure = _saw_every_put
    if native is not None:
        # A borrow goes past the methods of the one class that was sped up last. Now that is none that has pools.
        native.speed_up(type("Nobody", (native.Base,), {}))
    for name, method in _WATCHING.items():
        setattr(Pool, name, method)
    _loans.listen()


def turn_off() -> None:
    """Forget all, and cost nothing again."""
    global _on
    _on = False
    _loans.stop_listening()
    for name, method in _PLAIN.items():
        setattr(Pool, name, method)
    if native is not None:
        native.speed_up(Pool)
    _loans.forget_all()
    _newer.clear()
    _older.clear()


# --- what takes the place of the pool's methods ---


def _init(self: Pool[Any], *args: Any, **kwargs: Any) -> None:
    _plain_init(self, *args, **kwargs)
    _newer.add(self)


def _get(self: Pool[Any]) -> Any:
    obj = _plain_get(self)
    if obj is not None and self._WATCHED:
        place = caller()
        entry = _loans.entry_of(obj)
        if entry is not None and entry.put is not None:
            try:
                _check_the_only_one(self, obj, entry, place)
                _check_not_shared_over_fork(obj, entry, entry.put, place)
            except Warning:
                _loans.forget(obj)
                raise
        _loans.got(self, obj, place)
    return obj


def _put(self: Pool[Any], obj: Any) -> None:
    if obj is None or not self._WATCHED:
        _plain_put(self, obj)
        return
    place = caller()
    _check_put(obj, place)
    # Before the put: after it, somebody else may have got the object.
    _loans.came_back(self, obj, place)
    try:
        _plain_put(self, obj)
    except BaseException:
        _loans.forget(obj)  # it was not kept
        raise
    finally:
        _count_put(self)


def _check_put(obj: Any, place: Place) -> None:
    entry = _loans.entry_of(obj)
    if entry is not None:
        if entry.put is None:
            _check_not_shared_over_fork(obj, entry, entry.got, place)
        elif _is_idle(obj, entry):
            raise ValueError(_put_twice(obj, entry, place))


def _abandon(self: Pool[Any], obj: Any) -> None:
    if self._WATCHED:
        _loans.forget(obj)
        _count_put(self)
    _plain_abandon(self, obj)


def _note_lent(self: Pool[Any], obj: Any) -> None:
    _loans.got(self, obj, caller())


def _note_back(self: Pool[Any], obj: Any) -> None:
    place = caller()
    _check_put(obj, place)
    _loans.came_back(self, obj, place)
    _count_put(self)


def _count_put(pool: Pool[Any]) -> None:
    if pool in _older:
        _older[pool] += 1  # one that is lost to another thread makes us doubt, and no more


def _saw_every_put(entry: Entry) -> bool:
    """Whether what `entry` says is lent can't have been put by a bound method from before."""
    pool = entry.pool()
    return pool in _newer or (isinstance(pool, Pool) and pool in _older and pool.stats().puts <= _older[pool])


_WATCHING: dict[str, Callable[..., Any]] = {
    "__init__": _init,
    "get": _get,
    "put": _put,
    "_abandon": _abandon,
    "_note_lent": _note_lent,
    "_note_back": _note_back,
}
_PLAIN: dict[str, Callable[..., Any]] = {name: vars(Pool)[name] for name in _WATCHING}
_plain_init, _plain_get, _plain_put, _plain_abandon, _, _ = _PLAIN.values()
for _name, _method in _WATCHING.items():
    update_wrapper(_method, _PLAIN[_name])


# --- a second put ---


def _is_idle(obj: object, entry: Entry) -> bool:
    """Whether `obj` really lies in its pool, as far as one can see.

    It was put and no get of it was seen. But the pool may have dropped it: then a finalizer, say, may put it once more.
    """
    pool = entry.pool()
    if not isinstance(pool, Pool):
        return False  # it is gone, with all that lay there
    idle = (shard for shards in (pool._primary, pool._victim) for shard in list(shards.values()))
    if native is None or has_gil():
        return any(held is obj for shard in idle for held in [*shard.private, *shard.shared.copy()])
    # Nobody but its owner may look into a twin's private slot.
    _, own = pool._pin()
    return own.holds_private(obj) or any(held is obj for shard in idle for held in shard.shared)


def _put_twice(obj: object, entry: Entry, place: Place) -> str:
    got = "it was never got" if entry.got is None else f"it was got at {entry.got}"
    return (
        f"{shown(obj)} was put already and is idle in {entry.pool_name}: put at {entry.put}, and once more at {place}; "
        f"{got}. Put each object once for each get"
    )


# --- what was never got, and is still in use elsewhere ---


def _check_the_only_one(pool: Pool[Any], obj: object, entry: Entry, place: Place) -> None:
    """Warn if `obj`, which came from outside, is handed out while something still refers to it.

    Only now: when it was put, the list or the dict that it came from may have been about to go. A get that shares an
    object with others is a fact. That a local variable still refers to it, nobody can tell.
    """
    if entry.got is not None or pool not in _newer:
        return
    for holder in _holders(obj, entry):
        warn(
            f"{entry.what}, got from {entry.pool_name} at {place}, is in use elsewhere: {_described(holder)} refers to "
            f"it. It was put at {entry.put}, and had not come from a pool",
            place,
        )
        return


# Their references are local variables.
_RUNNING_CODE = (FrameType, GeneratorType, CoroutineType, AsyncGeneratorType)

# What leads from any object to everything there is.
_OUT_OF_BOUNDS = (type, ModuleType, FunctionType)

_FAR = 1000
"""How many objects are looked at to find what an object consists of."""


def _holders(obj: object, entry: Entry) -> list[Any]:
    """What refers to `obj` and is no part of it, as a child that knows its parent is."""
    holders = [each for each in gc.get_referrers(obj) if each is not entry and not isinstance(each, _RUNNING_CODE)]
    parts = _parts(obj) if holders else set()
    return [each for each in holders if id(each) not in parts]


def _parts(obj: object) -> set[int]:
    seen = {id(obj)}
    queue = [obj]
    for part in queue:  # it grows
        for each in gc.get_referents(part):
            if id(each) not in seen and not isinstance(each, _OUT_OF_BOUNDS) and len(seen) < _FAR:
                seen.add(id(each))
                queue.append(each)
    return seen


def _described(holder: Any) -> str:
    if isinstance(holder, dict) and "__spec__" in holder:
        return f"a global variable of {holder.get('__name__')}"
    return f"a {type(holder).__qualname__}"


# --- the child of a fork ---


def _check_not_shared_over_fork(obj: object, entry: Entry, before: Place | None, place: Place) -> None:
    """Warn if `obj` is used by two processes, the one that got or put it at `before` and now this one.

    Memory is copied by a fork, and such objects are two. Not so what the kernel keeps behind a descriptor.
    """
    if entry.process == os.getpid():
        return
    descriptor = _open_descriptor(obj)
    if descriptor is not None:
        warn(
            f"{entry.what} of {entry.pool_name} came over a fork with open descriptor {descriptor}, which two "
            f"processes now use: at {before} before the fork, at {place} after it. clear() such a pool in the child",
            place,
        )


def _open_descriptor(obj: object) -> int | None:
    """That of `obj` or of one of its attributes; but not that of a standard stream, which all processes share."""
    attributes = gc.get_referents(obj)
    attributes += [value for each in attributes if type(each) is dict for value in each.values()]
    for each in [obj, *attributes]:
        try:
            number = each.fileno()
        except Exception:
            continue  # it has none, or it is closed
        if isinstance(number, int) and number > 2:
            return number
    return None


# --- when ---


def _show_warnings() -> None:
    # By default Python shows no ResourceWarning. Who asked for the debug mode wants to see ours.
    if not sys.warnoptions:
        warnings.filterwarnings("default", "aiopool: ", ResourceWarning)


def _look_at_loop(running: object) -> None:
    if not _on and isinstance(running, asyncio.AbstractEventLoop) and running.get_debug():
        _show_warnings()
        turn_on()


def _report_at_exit() -> None:
    """What dies from here on dies of the interpreter's end."""
    if _on:
        _loans.sweep()
        turn_off()


def turn_on_when_asked() -> None:
    """Now if the environment asks for it; else when a pool comes to a loop that is in debug mode."""
    atexit.register(_report_at_exit)
    _processor.look_at_loop = _look_at_loop
    if os.environ.get("AIOPOOL_DEBUG"):
        _show_warnings()
        turn_on()
