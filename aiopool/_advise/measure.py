"""Measures times, memory, and how many objects can be in flight.

Fresh and pooled objects are timed in turns, in many short samples, and the fastest sample of each counts. Other load on
the machine can only slow a sample down, and on a busy machine longer samples would rarely be undisturbed. All this runs
on an event loop, because off-loop a get costs more.
"""

import inspect
import itertools
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]

from .._pool import Pool
from .loops import Functions, Loop, Timed, functions, loops
from .results import Case, Measured
from .user_code import UserCode, UserCodeError, called

MANY = 100
"""Objects in flight at once, unless they would take too much memory or time."""

MOST_MEMORY = 256 * 2**20
"""The most bytes that all objects in flight may take."""

SAMPLE = 0.001
"""The least seconds of a sample: far more than the error of a clock, and less than a scheduler's time slice."""

FEWEST_ROUNDS, MOST_ROUNDS = 3, 1000

TOUCHED_FROM = 128 * 1024
"""In bytes. glibc gets larger blocks from the system, which provides each page only when it is written to."""

PAGE = 4096

UNCHANGEABLE = (bytes, str, int, float, complex, frozenset, range)
"""Immutable types: a pool could only hand out their old values."""

Progress = Callable[[float], object]
"""Called with the fraction that is done, from 0 to 1."""


async def measure(code: UserCode, seconds: float, progress: Progress) -> Measured:
    """Measure what objects cost, fresh and pooled. Takes about `seconds`.

    :raises UserCodeError: the code failed, or a pool cannot hold what it creates.
    """
    namespace = code.namespace()
    namespace["_aiopool_touch"] = _touch
    made = functions(code, namespace)
    first = _first_object(made)
    touched = not code.use and _is_untouched_memory(first)
    if touched:
        code = code._replace(use="_aiopool_touch(obj)")
        made = functions(code, namespace)
    del first
    memory = _memory(made)
    count = _count(made, memory, seconds)
    pool: Any = Pool(made.create, reset=made.reset if code.reset else None)
    timed = loops(code, namespace, pool, count, made.reset, perf_counter)
    one, many = _cases(timed, count, seconds, progress)
    if pool.stats().rejected:
        raise UserCodeError("--reset returns False, which tells a pool not to keep the object")
    reset = _reset_time(timed.reset) if code.reset else 0.0
    return Measured(one, many, reset, memory, touched)


def _first_object(made: Functions) -> Any:
    obj = called(made.create)
    if obj is None:
        raise UserCodeError("the expression returns None, which a pool does not keep")
    if inspect.isawaitable(obj):
        if inspect.iscoroutine(obj):
            obj.close()  # prevents the warning that it was never awaited
        raise UserCodeError(
            "the expression returns an awaitable: only objects that are created without `await` can be measured"
        )
    if isinstance(obj, UNCHANGEABLE):
        raise UserCodeError(
            f"the expression returns {type(obj).__name__}, which cannot be changed: there is nothing to reuse it for; "
            "keep one, or pool something that can be refilled, such as a bytearray"
        )
    if called(made.create) is obj:
        raise UserCodeError("the expression returns the same object each time: it is shared already, without a pool")
    called(made.use, obj)
    called(made.reset, obj)
    called(made.use, obj)  # an object that was reset must be usable again
    return obj


def _is_untouched_memory(obj: Any) -> bool:
    try:
        view = memoryview(obj)
        if view.readonly or view.nbytes < TOUCHED_FROM:
            return False
        _touch(obj)
    except (BufferError, TypeError, ValueError):  # not a buffer, or not contiguous
        return False
    return True


def _touch(obj: Any) -> None:
    """Write to each page, as any use would."""
    view = memoryview(obj).cast("B")
    view[::PAGE] = bytes(-(-len(view) // PAGE))


def _memory(made: Functions) -> int:
    """Resident memory of each object in bytes, measured with enough objects to make it visible; 0 if it is tiny."""
    process = psutil.Process()
    held: list[Any] = []
    start, before = perf_counter(), process.memory_info().rss
    while True:
        for _ in range(max(1, len(held))):
            obj = called(made.create)
            called(made.use, obj)
            held.append(obj)
        grown = process.memory_info().rss - before
        if grown >= 8 * 2**20 or len(held) >= 2**14 or perf_counter() - start > 0.2:
            # A smaller growth may just as well be the interpreter's own.
            return grown // len(held) if grown >= len(held) * 16 and grown > 2**16 else 0


def _count(made: Functions, memory: int, seconds: float) -> int:
    """How many objects to use for "many in flight"."""
    start = perf_counter()
    called(made.use, called(made.create))
    took = perf_counter() - start
    by_memory = MOST_MEMORY // memory if memory else MANY
    # Each round creates that many objects, and at least FEWEST_ROUNDS rounds must fit.
    by_time = seconds / 4 / FEWEST_ROUNDS / took
    return int(max(2, min(MANY, by_memory, by_time)))


class _Timing(NamedTuple):
    """A loop, how often it runs in one sample, and how many objects that uses."""

    loop: Loop
    times: int
    objects: int

    def sample(self) -> float:
        """Time one sample; returns seconds per object."""
        start = perf_counter()
        called(self.loop, itertools.repeat(None, self.times))
        return (perf_counter() - start) / self.objects


def _cases(timed: Any, count: int, seconds: float, progress: Progress) -> tuple[Case, Case]:
    start = perf_counter()
    timings = [
        _calibrated(loop, objects)
        for loop, objects in (
            (timed.fresh_one, 1),
            (timed.pooled_one, 1),
            (timed.fresh_many, count),
            (timed.pooled_many, count),
        )
    ]
    rounds: list[list[float]] = []
    for done in range(MOST_ROUNDS):
        share = (perf_counter() - start) / seconds
        if share >= 1 and done >= FEWEST_ROUNDS:
            break
        progress(min(1.0, share))
        rounds.append([timing.sample() for timing in timings])
    fresh_one, pooled_one, fresh_many, pooled_many = zip(*rounds, strict=True)
    return _case(1, fresh_one, pooled_one), _case(count, fresh_many, pooled_many)


def _calibrated(loop: Loop, objects: int) -> _Timing:
    """Find out how often the loop must run in a sample."""
    times = 1
    while True:
        timing = _Timing(loop, times, times * objects)
        if timing.sample() * timing.objects >= SAMPLE / 2:
            return timing
        times *= 2


def _case(in_flight: int, fresh: tuple[float, ...], pooled: tuple[float, ...]) -> Case:
    return Case(in_flight, min(fresh), min(pooled))


def _reset_time(loop: Timed) -> float:
    times = 1
    while True:
        start = perf_counter()
        called(loop, itertools.repeat(None, times))
        if perf_counter() - start >= SAMPLE:
            break
        times *= 2
    samples: list[tuple[float, float]] = [called(loop, itertools.repeat(None, times)) for _ in range(10)]
    # The fastest of each, not the smallest difference, which would be too small.
    with_it, without = map(min, zip(*samples, strict=True))
    seconds: float = (with_it - without) / times
    return max(0.0, seconds)
