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

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, overload

from ._checks import callable_or_none, shown
from ._core.loops import running_loop
from ._debug import _records

if TYPE_CHECKING:
    import pytest

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")

Factory = Callable[..., Any]


class LoopBound(Generic[T]):
    """An object that lives on another loop than the test, and the way to it."""

    __slots__ = ("_loop", "_obj")

    def __init__(self, obj: T, loop: "BackgroundLoop") -> None:
        self._obj = obj
        self._loop = loop

    @overload
    async def run(
        self, function: Callable[Concatenate[T, P], Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

    @overload
    async def run(self, function: Callable[Concatenate[T, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What `function(obj, ...)` returns, called and awaited on the object's own loop; on asyncio and trio.

        Cancelled, it cancels the call.

        :raises Exception: what the function raises.
        """
        future = self._loop.start(_call(function, self._obj, *args, **kwargs))
        if asyncio._get_running_loop() is not None:
            return await asyncio.wrap_future(future)
        import trio

        try:
            return await trio.to_thread.run_sync(future.result, abandon_on_cancel=True)
        except trio.Cancelled:
            future.cancel()
            raise

    @overload
    def run_sync(
        self, function: Callable[Concatenate[T, P], Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

    @overload
    def run_sync(self, function: Callable[Concatenate[T, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def run_sync(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As `run`, for a test that is no coroutine: waits for the result.

        :raises RuntimeError: a loop runs on this thread, and would stand still.
        :raises Exception: what the function raises.
        """
        if running_loop() is not None:
            raise RuntimeError("run_sync() would stop the running loop: await run() there")
        return self._loop.run(_call(function, self._obj, *args, **kwargs))

    def __repr__(self) -> str:
        return f"<aiopool.testing.LoopBound {shown(self._obj)}>"


async def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    result = function(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


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

    def fixture(_aiopool_residents: "Residents", request: "pytest.FixtureRequest", **needs: Any) -> Iterator[Any]:
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


class Recipe:
    """How to make an object, and how to make it as good as new."""

    def __init__(self, factory: Factory, reset: Callable[[Any], object] | None) -> None:
        self.factory = factory
        self.reset = reset
        parameters = inspect.signature(factory).parameters.values()
        self.needs = [each.name for each in parameters if each.default is each.empty]


class Key(NamedTuple):
    """Objects with the same key can stand in for each other."""

    recipe: Recipe
    #: the fixtures that provide what the recipe needs
    providers: "tuple[pytest.FixtureDef[Any], ...]"


class Resident:
    """An object on the background loop, and the task in which its factory began and will end."""

    obj: Any

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    async def move_in(self, needs: dict[str, Any]) -> None:
        """Make it."""
        self._end = asyncio.Event()
        ready = asyncio.get_running_loop().create_future()
        # In an empty context, or it would keep that of the first test.
        self._task = asyncio.create_task(self._live(needs, ready), context=Context())
        await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await self._task

    async def _live(self, needs: dict[str, Any], ready: "asyncio.Future[None]") -> None:
        made = self._recipe.factory(**needs)
        if not inspect.isasyncgen(made):
            self.obj = await made
        else:
            try:
                self.obj = await anext(made)
            except StopAsyncIteration:
                raise RuntimeError(f"{shown(self._recipe.factory)} ended without a yield") from None
        ready.set_result(None)
        await self._end.wait()
        if inspect.isasyncgen(made):
            await _finish(made)

    async def reset(self) -> bool:
        """Whether it can serve another test."""
        if self._task.done():
            await self._task  # a task group around its yield failed
            return False
        return self._recipe.reset is None or await _call(self._recipe.reset, self.obj) is not False

    async def move_out(self) -> None:
        """Tear it down."""
        self._end.set()
        await self._task


async def _finish(made: AsyncGenerator[Any, Any]) -> None:
    try:
        await anext(made)
    except StopAsyncIteration:
        return
    await made.aclose()
    raise RuntimeError(f"{shown(made)} has a second yield")


class Residents:
    """All objects of one session, and their loop."""

    def __init__(self, request: "pytest.FixtureRequest") -> None:
        self._request = request
        self._known: set[Key] = set()
        # No more than one of each kind: no two tests run at once.
        self._idle: dict[Key, Resident] = {}
        self._loop: BackgroundLoop | None = None

    @property
    def loop(self) -> "BackgroundLoop":
        """Started when it is first needed."""
        if self._loop is None:
            self._loop = BackgroundLoop()
        return self._loop

    def key(self, recipe: Recipe, request: "pytest.FixtureRequest") -> Key:
        """What the object that `request` asks for has in common with those that serve as well."""
        providers = [request._get_active_fixturedef(name) for name in recipe.needs if name != "request"]
        for provider in providers:
            if provider.scope != "session":
                import pytest

                pytest.fail(
                    f"ScopeMismatch: the pooled fixture {recipe.factory.__name__} lives until the end of the session, "
                    f"and cannot need {provider.argname}, which has {provider.scope} scope",
                    pytrace=False,
                )
        return Key(recipe, tuple(providers))

    def take(self, key: Key, needs: dict[str, Any]) -> Resident:
        """An object that is as good as new."""
        idle = self._idle.pop(key, None)
        if idle is not None:
            return idle
        if "request" in key.recipe.needs:
            needs["request"] = self._request  # that of the session, as the object is the session's
        self._see_to_the_end(key)
        resident = Resident(key.recipe)
        # It lives longer than the test that is the first to need it.
        with _records.getting_on_behalf_of(self):
            self.loop.run(resident.move_in(needs))
        return resident

    def give_back(self, key: Key, resident: Resident) -> None:
        """A test is done with the object."""
        good = False
        try:
            good = self.loop.run(resident.reset())
        finally:
            if good:
                self._idle[key] = resident
            else:
                self.loop.run(resident.move_out())

    def _see_to_the_end(self, key: Key) -> None:
        # Only now that what is needed is there, so that it is called before the end of that.
        end = partial(self._tear_down, key)
        if key not in self._known:
            self._known.add(key)
            self._request.session.addfinalizer(end)
        # A fixture with parameters ends with the last test of each.
        for provider in key.providers:
            provider.addfinalizer(end)

    def _tear_down(self, key: Key) -> None:
        resident = self._idle.pop(key, None)
        if resident is not None:
            self.loop.run(resident.move_out())

    def close(self) -> None:
        """End the loop."""
        if self._loop is not None:
            self._loop.stop()


class BackgroundLoop:
    """An asyncio loop in a thread of its own."""

    def __init__(self) -> None:
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="aiopool fixtures", daemon=True)
        self._thread.start()
        started.result()

    def _run(self, started: "Future[None]") -> None:
        asyncio.run(self._wait(started))

    async def _wait(self, started: "Future[None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        started.set_result(None)
        await self._stop.wait()

    def start(self, coroutine: Coroutine[Any, Any, R]) -> "Future[R]":
        """Run `coroutine` here; from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run `coroutine` here, and wait for its result."""
        return self.start(coroutine).result()

    def stop(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
