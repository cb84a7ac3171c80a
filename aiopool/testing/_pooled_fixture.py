"""`pooled_fixture`: an expensive async object for many tests, each of which runs on its own loop.

A fixture that outlives its test's loop cannot run on that loop, because its factory, its `reset` and its teardown all
need a running loop. So they get a separate loop, in its own thread, which runs until the session ends. Each object has
a task there, in which its factory begins and ends, so that task groups and cancel scopes around its `yield` work.

A test can directly use only objects that work on any loop. Connections, client sessions and servers do not, and nothing
can make them work on the test's loop. `loop_bound=True` is for them: the test gets a handle, and functions that it runs
through the handle run on the object's loop. A proxy that forwards each call would look nicer; but it could not know
which calls to forward, and the objects that these return are bound to the loop too.

Idle objects are not kept in a `Pool`, because a cleanup cycle would drop them without awaiting their teardown.
"""

import inspect
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from .._checks import callable_or_none, shown
from ._background_loop import LoopBound

if TYPE_CHECKING:
    import pytest

    from ._pooled_objects import PooledObjects

Factory = Callable[..., Any]

PLUGIN = "pytest_aiopool"


class Recipe:
    """How to create an object, and how to reset it."""

    def __init__(self, factory: Any, reset: Callable[[Any], object] | None) -> None:
        __tracebackhide__ = True
        #: the plain function, even if it was given as a staticmethod or classmethod
        self.factory: Factory = factory.__func__ if isinstance(factory, (staticmethod, classmethod)) else factory
        if not inspect.iscoroutinefunction(self.factory) and not inspect.isasyncgenfunction(self.factory):
            raise TypeError(f"pooled_fixture takes an async def function, not {shown(factory)}")
        self.reset = reset
        #: whether the factory takes the class of the test
        self.for_each_class = isinstance(factory, classmethod)
        #: the names of the fixtures that it takes
        self.needs = _parameters(self.factory)[self.for_each_class :]
        if self.factory is factory and self.needs[:1] in (["self"], ["cls"]):
            raise TypeError(
                f"{factory.__qualname__} takes {self.needs[0]}, but the object of a pooled fixture serves tests of "
                f"many instances. Write @staticmethod below @pooled_fixture and leave out {self.needs[0]}, or write "
                f"@classmethod and use cls"
            )

    @property
    def name(self) -> str:
        """The name of the fixture."""
        return self.factory.__name__


def _parameters(function: Factory) -> list[str]:
    """The parameters that pytest resolves as fixtures."""
    return [
        each.name
        for each in inspect.signature(function).parameters.values()
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]


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
    """Create a pytest fixture from an async factory, whose object is reused for many tests.

    `factory` is an `async def` function, with one `yield` if the object has to be torn down. Its parameters are
    fixtures of session scope. It is called when a test needs an object and none is idle. Its object is torn down when
    the session ends. If it raises or skips, later tests that need the object fail or skip in the same way, and it is
    not called again.

    `reset(obj)`, plain or async, runs after each test. If it returns `False` or raises, the object is torn down, and
    the next test gets a new one; an exception is reported as an error of the test that has just run.

    Factory, reset and teardown run on one asyncio loop in its own thread. `loop_bound=True` is for objects that work
    only on that loop: the test gets a `LoopBound`, and uses the object through it.

    In a class, write `@pooled_fixture` above `@staticmethod` (one object for all classes) or `@classmethod` (one for
    each class).

    >>> @pooled_fixture(reset=dict.clear)
    ... async def settings(): return {}

    :raises TypeError: `factory` is not an `async def` function, or takes `self`; or `reset` is not callable.
    """
    __tracebackhide__ = True
    if factory is None:
        return partial(pooled_fixture, reset=reset, loop_bound=loop_bound)
    recipe = Recipe(factory, callable_or_none("reset", reset))

    import pytest

    def fixture(*instance: object, request: "pytest.FixtureRequest", **needs: Any) -> Iterator[Any]:
        __tracebackhide__ = True
        objects = _objects_of_session(request)
        owner = type(instance[0]) if instance and recipe.for_each_class else None
        key = objects.key(recipe, owner, request)
        pooled = objects.take(key, needs, request.node)
        yield LoopBound(pooled.obj, pooled.loop) if loop_bound else pooled.obj
        objects.give_back(key, pooled)

    # pytest reads from the signature which fixtures to pass, and resolves them by the request of the test, because
    # modules may have fixtures of the same name. In a class it binds the function to an instance first.
    instance = inspect.Parameter("instance", inspect.Parameter.VAR_POSITIONAL)
    names = dict.fromkeys(["request", *recipe.needs])
    fixture.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [instance, *(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names)]
    )
    # For `pytest --fixtures`: name, description, file and line.
    fixture.__name__, fixture.__doc__ = recipe.name, recipe.factory.__doc__
    fixture.__module__ = recipe.factory.__module__
    fixture.__wrapped__ = recipe.factory  # type: ignore[attr-defined]
    return pytest.fixture(fixture)


def _objects_of_session(request: "pytest.FixtureRequest") -> "PooledObjects":
    __tracebackhide__ = True
    import pytest

    try:
        objects: PooledObjects | None = request.getfixturevalue("_aiopool_objects")
    except pytest.FixtureLookupError:
        objects = None
    if objects is None:
        pytest.fail(
            f"A pooled_fixture needs the pytest plugin {PLUGIN}, which is not loaded: {_why_not(request.config)}. "
            f'Load it with `-p {PLUGIN}`, or with `pytest_plugins = ["{PLUGIN}"]` in the top conftest.py',
            pytrace=False,
        )
    return objects


def _why_not(config: "pytest.Config") -> str:
    if config.pluginmanager.is_blocked(PLUGIN):
        return f"`-p no:{PLUGIN}` blocks it"
    if os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD") or config.getoption("disable_plugin_autoload", False):
        return "plugins are not loaded automatically here"
    return "aiopool is not installed where pytest runs"
