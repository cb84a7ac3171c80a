"""`pooled_fixture`: an expensive async object for many tests, each of them on a loop of its own.

A fixture that lives longer than one loop can't be run on any test's loop: what makes it, what resets it and what tears
it down all need a loop that is alive. So they get one of their own, in a thread of its own, that runs until the
session ends. Each object has a task there, in which its factory begins and ends, so that task groups and cancel
scopes around its `yield` work.

That says which objects a test may use as they are: those that do not care on which loop they are used. A connection, a
client session, a server do care; nothing can make them work on the test's loop. `loop_bound=True` is for them: the
test gets a handle, and what it runs through that runs where the object lives. A proxy that does so for each call would
look nicer. But it could not tell which calls to carry over, and what they return is bound to the loop as well.

What is idle here is not a `Pool`: a cleanup cycle would drop it, without awaiting its end.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, overload

from .._checks import callable_or_none, shown
from ._background_loop import LoopBound
from ._pooled_objects import Factory, Recipe, Residents

if TYPE_CHECKING:
    import pytest


@overload
def pooled_fixture(
    factory: Factory, /, *, reset: Callable[[Any], object] | None = None, loop_bound: bool = False
) -> Any: ...


@overload
def pooled_fixture(
    *, reset: Callable[[Any], object] | None = None, loop_bound: bool = False
) -> Callable[[Factory], Any]: ...


def pooled_fixture(
    factory: Factory | None = None, /, *, reset: Callable[[Any], object] | None = None, loop_bound: bool = False
) -> Any:
    """Make a pytest fixture of an async factory, whose object serves test after test.

    `factory` is an `async def`, with one `yield` if the object has to be torn down. Its parameters are fixtures of
    session scope. It is called when a test needs an object and none is idle, and torn down when the session ends.

    `reset(obj)`, plain or async, runs after each test. If it returns `False` or raises, the object is torn down, and
    the next test gets a new one; what it raised is reported as an error of the test before.

    All three run on one asyncio loop in a thread of its own. `loop_bound=True` is for objects that work on that loop
    only: then the test gets a `LoopBound`, through which it runs what it wants of the object.

    >>> @pooled_fixture(reset=dict.clear)
    ... async def settings(): return {}

    :raises TypeError: `factory` is no `async def` function, or `reset` is not callable.
    """
    if factory is None:
        return lambda factory: pooled_fixture(factory, reset=reset, loop_bound=loop_bound)
    if not inspect.iscoroutinefunction(factory) and not inspect.isasyncgenfunction(factory):
        raise TypeError(f"pooled_fixture takes an async def function, not {shown(factory)}")
    import pytest

    recipe = Recipe(factory, callable_or_none("reset", reset))

    def fixture(_aiopool_residents: Residents, request: "pytest.FixtureRequest", **needs: Any) -> Iterator[Any]:
        key = _aiopool_residents.key(recipe, request)
        resident = _aiopool_residents.take(key, needs)
        yield LoopBound(resident.obj, _aiopool_residents.loop) if loop_bound else resident.obj
        _aiopool_residents.give_back(key, resident)

    # pytest reads there what to hand over: by the test's own request, for modules may have fixtures of the same name.
    names = dict.fromkeys(["_aiopool_residents", "request", *recipe.needs])
    fixture.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    )
    # For `pytest --fixtures`.
    fixture.__name__, fixture.__doc__, fixture.__module__ = factory.__name__, factory.__doc__, factory.__module__
    return pytest.fixture(fixture)
