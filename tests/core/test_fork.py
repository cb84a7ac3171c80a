"""Forks amid threads, from inside a coroutine, and with objects that are bound to the parent's loop."""

import asyncio
import os

import pytest
from children import run_program
from shared import FORKS_AMID_THREADS, FREE_THREADED

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

amid_threads = pytest.mark.skipif(
    FREE_THREADED,
    reason="free-threaded CPython itself leaves locks of its objects held in the child, about once in 200 forks",
)

OPTIONS = ["-W", FORKS_AMID_THREADS]


def test_pools_work_in_the_child_of_a_fork_inside_a_coroutine(child_env):
    assert run_program("fork_in_a_coroutine.py", child_env, options=OPTIONS) == "ok\n"


@amid_threads
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_child_keeps_no_loop_no_lock_and_no_processor_but_its_own(child_env, loop):
    assert run_program("fork_state.py", child_env, arguments=[loop], options=OPTIONS) == "ok\n"


def test_the_child_creates_loop_bound_objects_of_its_own(child_env):
    assert run_program("fork_loop_bound.py", child_env, options=OPTIONS) == "ok\n"


@amid_threads
def test_amid_threads_that_use_a_pool_the_child_works_at_once(child_env):
    assert run_program("fork_amid_threads.py", child_env, options=OPTIONS) == "ok\n"


@amid_threads
def test_amid_threads_that_use_buffers_the_child_works_at_once(reusing, child_env):
    assert run_program("buffer_fork.py", child_env, options=OPTIONS) == "ok\n"


def test_a_lock_held_by_a_lost_thread_is_renewed(reference):
    """Without the renewal it stays locked, and no other thread can reach the objects that the child puts."""

    async def main():
        pool = reference.Pool()
        for _ in range(3):
            pool.put(object())
        (shard,) = pool._store.primary.values()
        shard.lock.acquire()
        pool.put(object())
        assert len(shard.private) == 2
        reference._core.cleanup._after_fork_in_child()
        pool.put(object())
        assert (len(shard.private), len(shard.shared)) == (1, 4)

    asyncio.run(main())


def test_locks_of_loop_bound_shards_are_renewed_too(reference):
    async def main():
        pool = reference.Pool(loop_bound=True)
        pool.put(object())
        ((_, shard),) = pool._store.shards()
        shard.lock.acquire()
        reference._core.cleanup._after_fork_in_child()
        assert not shard.lock.locked()

    asyncio.run(main())
