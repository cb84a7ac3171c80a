"""The objects of pooled fixtures: their set-up, reset and teardown, and the idle ones of a session.

A factory that fails is not run again; otherwise, if a server cannot be reached, 500 tests would wait for it one after
another. So the failure is stored, as pytest does for fixtures of session scope, and raised for every later test. There
is one exception, because plugins that rerun failed tests expect the fixture to be set up again: the test for which the
factory ran may run it again, but no other test may.

A fork copies the objects, but not the loop on which they live. So each process has its own objects, and those of the
parent are left alone.
"""

import asyncio
import inspect
import os
import sys
from collections.abc import AsyncGenerator, Awaitable
from contextvars import Context
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

import pytest

from .._debug import _records
from ._background_loop import BackgroundLoop, call, outcome_of
from ._pooled_fixture import Recipe


class Key(NamedTuple):
    """Objects with the same key are interchangeable."""

    recipe: Recipe
    #: the class of the test, if the factory takes it
    owner: type | None
    #: the fixtures that provide what the recipe needs
    providers: tuple[pytest.FixtureDef[Any], ...]


_NO_YIELD = object()

# Objects are held here from set-up to teardown, and so forever in the child of a fork. Otherwise the garbage collector
# would destroy the tasks of the parent there, and asyncio would report each of them.
_living: "set[PooledObject]" = set()


class PooledObject:
    """An object on the background loop, and the task in which its factory begins and ends."""

    obj: Any

    def __init__(self, key: Key, loop: BackgroundLoop) -> None:
        self._recipe = key.recipe
        self._factory = key.recipe.factory if key.owner is None else partial(key.recipe.factory, key.owner)
        self.loop = loop

    async def set_up(self, needs: dict[str, Any]) -> None:
        """Create the object."""
        __tracebackhide__ = True
        self._end = asyncio.Event()
        ready = asyncio.get_running_loop().create_future()
        # In an empty context; otherwise the task would keep the context of the first test alive.
        self._task = asyncio.create_task(outcome_of(self._live(needs, ready)), context=Context())
        try:
            await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if not ready.done():
            self._raise_error()

    async def _live(self, needs: dict[str, Any], ready: "asyncio.Future[None]") -> None:
        __tracebackhide__ = True
        _living.add(self)
        try:
            await self._run_factory(needs, ready)
        finally:
            _living.discard(self)

    async def _run_factory(self, needs: dict[str, Any], ready: "asyncio.Future[None]") -> None:
        __tracebackhide__ = True
        created = self._factory(**needs)
        if not inspect.isasyncgen(created):
            self.obj = await created
        else:
            self.obj = await anext(created, _NO_YIELD)
            if self.obj is _NO_YIELD:
                pytest.fail(
                    f"the factory of the pooled fixture {self._recipe.name} ended without a yield", pytrace=False
                )
        ready.set_result(None)
        try:
            await self._end.wait()
        except asyncio.CancelledError as error:
            # A task group or a timeout around the yield cancelled this task, and turns the cancellation into the real
            # error.
            if not inspect.isasyncgen(created):
                raise
            await self._finish(created, created.athrow(error))
        else:
            if inspect.isasyncgen(created):
                await self._finish(created, anext(created))

    async def _finish(self, created: AsyncGenerator[Any, Any], rest: Awaitable[Any]) -> None:
        __tracebackhide__ = True
        try:
            await rest
        except StopAsyncIteration:
            return
        await created.aclose()
        pytest.fail(f"the factory of the pooled fixture {self._recipe.name} has a second yield", pytrace=False)

    def has_ended(self) -> bool:
        """Whether its factory has already ended, for example because a task group around its yield failed."""
        return self._task.done()

    async def reset(self) -> bool:
        """Reset the object, and return whether another test can use it."""
        __tracebackhide__ = True
        if self.has_ended():
            return False
        good = self._recipe.reset is None or await call(self._recipe.reset, self.obj) is not False
        return good and not self.has_ended()

    async def tear_down(self) -> None:
        """Tear the object down."""
        __tracebackhide__ = True
        self._end.set()
        await asyncio.wait([self._task])
        self._raise_error()

    def _raise_error(self) -> None:
        __tracebackhide__ = True
        self._task.result().get()


class Failure(NamedTuple):
    """How a factory failed."""

    error: BaseException
    traceback: TracebackType | None
    #: the test for which it ran
    test: pytest.Item

    def raise_again(self, recipe: Recipe) -> NoReturn:
        """Raise the error again, for another test."""
        __tracebackhide__ = True
        if not _is_skip(self.error):
            self._add_note(
                f"aiopool: the factory of the pooled fixture {recipe.name} failed in {self.test.nodeid}, "
                f"and is not run again in this session"
            )
        # With the original traceback; otherwise it would grow with each test.
        raise self.error.with_traceback(self.traceback)

    def _add_note(self, note: str) -> None:
        __tracebackhide__ = True
        if isinstance(self.error, pytest.fail.Exception) and not self.error.pytrace:
            pytest.fail(f"{self.error.msg}\n{note}", pytrace=False)  # pytest shows only the message, not notes
        if note not in getattr(self.error, "__notes__", ()):
            self.error.add_note(note)


def _is_skip(error: BaseException) -> bool:
    unittest = sys.modules.get("unittest")
    return isinstance(error, pytest.skip.Exception) or (unittest is not None and isinstance(error, unittest.SkipTest))


class _OfProcess:
    """The loop and the idle objects of one process."""

    def __init__(self) -> None:
        self.loop: BackgroundLoop | None = None
        # At most one for each key, because tests run one at a time.
        self.idle: dict[Key, PooledObject] = {}


class PooledObjects:
    """All objects of one session, and their loop."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._known: set[Key] = set()
        self._failures: dict[Key, Failure] = {}
        self._of_processes: dict[int, _OfProcess] = {}

    @property
    def _own(self) -> _OfProcess:
        return self._of_processes.setdefault(os.getpid(), _OfProcess())

    def key(self, recipe: Recipe, owner: type | None, request: pytest.FixtureRequest) -> Key:
        """The key of the objects that can serve `request`."""
        __tracebackhide__ = True
        providers = [request._get_active_fixturedef(name) for name in recipe.needs if name != "request"]
        for provider in providers:
            if provider.scope != "session":
                pytest.fail(
                    f"ScopeMismatch: the pooled fixture {recipe.name} lives until the end of the session, "
                    f"and cannot need {provider.argname}, which has {provider.scope} scope",
                    pytrace=False,
                )
        return Key(recipe, owner, tuple(providers))

    def take(self, key: Key, needs: dict[str, Any], test: pytest.Item) -> PooledObject:
        """Return an idle object that was reset, or a new one."""
        __tracebackhide__ = True
        idle = self._own.idle.pop(key, None)
        if idle is not None and not idle.has_ended():
            return idle
        if idle is not None:
            idle.loop.run(idle.tear_down)  # raises the error that ended it
        failure = self._failures.get(key)
        if failure is not None and failure.test is not test:
            failure.raise_again(key.recipe)
        self._tear_down_in_time(key)
        try:
            return self._create(key, needs)
        except KeyboardInterrupt:
            raise  # it ends the session, and the factory did not fail
        except BaseException as error:
            self._failures[key] = Failure(error, error.__traceback__, test)
            raise

    def _create(self, key: Key, needs: dict[str, Any]) -> PooledObject:
        __tracebackhide__ = True
        own = self._own
        if own.loop is None:
            own.loop = BackgroundLoop()
        if "request" in key.recipe.needs:
            needs["request"] = self._request  # the request of the session, to which the object belongs
        created = PooledObject(key, own.loop)
        # The owner is not the test, because the object outlives it.
        with _records.getting_on_behalf_of(self):
            own.loop.run(created.set_up, needs)
        return created

    def give_back(self, key: Key, pooled: PooledObject) -> None:
        """Reset the object after a test, and keep it if possible."""
        __tracebackhide__ = True
        if not pooled.loop.runs_here():
            return  # this is the child of a fork in the test, and the object belongs to the parent
        good = False
        try:
            good = pooled.loop.run(pooled.reset)
        finally:
            if good:
                self._own.idle[key] = pooled
            else:
                pooled.loop.run(pooled.tear_down)

    def _tear_down_in_time(self, key: Key) -> None:
        # Registered only after the fixtures it needs were set up, so that it is torn down before them.
        end = partial(self._tear_down, key)
        if key not in self._known:
            self._known.add(key)
            self._request.session.addfinalizer(end)
        # A parametrized fixture is torn down after the last test of each parameter.
        for provider in key.providers:
            provider.addfinalizer(end)

    def _tear_down(self, key: Key) -> None:
        __tracebackhide__ = True
        self._failures.pop(key, None)  # with another value of a parameter it may work
        pooled = self._own.idle.pop(key, None)
        if pooled is not None:
            pooled.loop.run(pooled.tear_down)

    def close(self) -> None:
        """Stop the loop of this process."""
        own = self._of_processes.pop(os.getpid(), None)
        if own is not None and own.loop is not None:
            own.loop.stop()
