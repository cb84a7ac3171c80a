"""The tests in several threads at once, as `pytest --parallel-threads 8` runs them, with pytest-run-parallel.

That calls each test function in all of the threads at the same time. This module gives each thread a loop and fixtures
of its own, while all threads share the package, and with it processors, registry and cleanup. It also finds the tests
that cannot run like this, because they check something that all threads share.

parallel.txt lists these tests, those of pools, buffers and streams; pytest reads it as `@tests/parallel.txt`. Many
other tests of the core start threads by themselves, and eight times as many would take too long.
"""

import functools
import inspect
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import Context
from pathlib import Path
from types import CodeType, FunctionType, SimpleNamespace

import anyio
import pytest
import streaming

TESTS = Path(__file__).parent

SHARED = {
    "cleanup": "a cleanup cycle takes the idle objects of the other threads' pools",
    "collect": "a garbage collection is a cleanup cycle too",
    "current_processor": "which ids are free depends on the other threads' loops",
    "processors": "which ids are free depends on the other threads' loops",
    "at_every_bytecode": "bytecodes can be monitored only once at a time",
    "raise_in_every_gap_on_a_loop": "bytecodes can be monitored only once at a time",
    "_debug": "the debug mode is for all pools",
    "isolated": "only one test at a time can be isolated in one process",
    "freeing": "any loop frees objects that another has retired",
    "getrefcount": "another thread that goes through all pools refers to them for a moment",
    "MonkeyPatch": "a replaced attribute is replaced for all threads",
    "LoopRecord": "it knows the other threads' loops",
    "_pools": "the registry has the other threads' pools",
    "pools": "the registry has the other threads' pools",
}
"""Names that a test, or a helper in this directory, uses only if it changes or checks something that threads share."""

SHARED_FIXTURES = {
    "child_env": "another process does the same, whatever thread starts it",
    "monkeypatch": "a replaced attribute is replaced for all threads",
}

COUNTED_IN_PYTHON = {"bytes_idle", "peak_idle", "over_budget", "displaced"}
"""What a budget counts. In Python without a GIL, each thread that goes through all pools counts again, and what another
thread is just adding to its own pool is lost."""


def prepare(items):
    """Mark those `items` that cannot run in several threads; the others get fixtures and a loop for each thread."""
    for item in items:
        reason = why_not(item)
        if reason:
            item.add_marker(pytest.mark.thread_unsafe(reason=reason))
        else:
            item.obj = in_its_own_thread(item)


def why_not(item):
    """Why this test cannot run in several threads at once, or None."""
    if not isinstance(item, pytest.Function):
        return "it is no function"
    if "aiofastnet" in item.name:
        return "its transports raise in any other thread, where a garbage collection may finalize their writers"
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if params.get("either") == "asyncio":
        return "asyncio's own streams, which are only there to compare, lose answers of a server with too much to do"
    reasons = [SHARED_FIXTURES.get(name) for name in item.fixturenames]
    names = names_of_the_test(item)
    reasons += [SHARED.get(name) for name in names]
    in_python = "reference" in item.fixturenames or params.get("aiopool") == "python"
    if in_python and not COUNTED_IN_PYTHON.isdisjoint(names):
        reasons.append("another thread may be counting again what the budget has")
    return next(filter(None, reasons), None)


def names_of_the_test(item):
    """All names that the test uses, and those that its own fixtures use."""
    seen = {streaming.reported}  # it collects, but these tests count nothing that a cleanup cycle changes
    functions = [inspect.unwrap(item.function), *(each.func for each in own_fixtures(item).values())]
    return [name for function in functions for name in names_in(function, seen)]


def own_fixtures(item):
    """The fixtures that each thread has for itself, by their names."""
    found = {name: fixtures[-1] for name, fixtures in item._fixtureinfo.name2fixturedefs.items()}
    return {name: each for name, each in found.items() if each.scope != "session" and is_of_the_tests(each.func)}


def is_of_the_tests(function):
    """Whether a function is in this directory or below."""
    return isinstance(function, FunctionType) and Path(function.__code__.co_filename).is_relative_to(TESTS)


def names_in(function, seen):
    """The names that a function uses, itself and in the functions and classes of the tests that it calls."""
    if function in seen:
        return
    seen.add(function)
    for name in names_in_code(function.__code__):
        yield name
        used = inspect.unwrap(function.__globals__.get(name))
        for each in vars(used).values() if isinstance(used, type) else [used]:
            if is_of_the_tests(each):
                yield from names_in(each, seen)


def names_in_code(code):
    """The names in a code object, and in those of the functions inside."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in_code(constant)


def in_its_own_thread(item):
    """The test function, for any thread: with fixtures of its own, and on a loop of its own if it is async."""
    test = item.obj
    is_async = inspect.iscoroutinefunction(test)

    async def main():
        async with AsyncExitStack() as stack:
            result = test(**await Fixtures(item, stack).of_the_test())
            if is_async:
                await result

    @functools.wraps(test)
    def run(**shared):
        # Not in the context of pytest's own thread, which new threads inherit on free-threaded builds.
        context = Context()
        if is_async:
            backend, options = item.callspec.params["anyio_backend"]
            context.run(anyio.run, main, backend=backend, backend_options=options)
        else:
            context.run(finish, main())

    return run


def finish(coroutine):
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("a fixture of a test that is not async waits for something")


class Fixtures:
    """The fixtures of one test in one thread: fixtures of function or module scope are its own, others are shared."""

    def __init__(self, item, stack):
        self._item, self._stack = item, stack
        self._own = own_fixtures(item)
        self._values = {}

    async def of_the_test(self):
        """The arguments of the test. Always with `reports`: pytest's own would belong to another loop."""
        names = self._item._fixtureinfo.argnames
        if "reports" in self._item.fixturenames:
            await self._get("reports")
        return {name: await self._get(name) for name in names}

    async def _get(self, name):
        if name not in self._values:
            self._values[name] = await self._create(name)
        return self._values[name]

    async def _create(self, name):
        if name == "tmp_path":
            return Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        if name not in self._own:
            return self._item.funcargs[name]
        fixture = self._own[name]
        arguments = {each: await self._get(each) for each in fixture.argnames if each != "request"}
        if "request" in fixture.argnames:
            shared = self._item._request.getfixturevalue
            arguments["request"] = SimpleNamespace(param=self._item.callspec.params.get(name), getfixturevalue=shared)
        if inspect.isasyncgenfunction(fixture.func):
            return await self._stack.enter_async_context(asynccontextmanager(fixture.func)(**arguments))
        if inspect.isgeneratorfunction(fixture.func):
            return self._stack.enter_context(contextmanager(fixture.func)(**arguments))
        return fixture.func(**arguments)
