"""The objects of pooled fixtures: how each begins, is reset and ends, and what one session keeps of them."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _loans
from .._checks import shown
from ._background_loop import BackgroundLoop, call

if TYPE_CHECKING:
    import pytest

Factory = Callable[..., Any]


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
        return self._recipe.reset is None or await call(self._recipe.reset, self.obj) is not False

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
    def loop(self) -> BackgroundLoop:
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
        with _loans.lending_to(self):
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
