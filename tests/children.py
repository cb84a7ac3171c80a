"""Runs programs in separate interpreters, where a crash only fails a test; and helpers for these programs."""

import asyncio
import contextvars
import os
import re
import subprocess
import sys
import traceback

from shared import PROGRAMS

CHILD_LIMIT = 280.0
"""Seconds after which a child that does not end is killed: less than pytest's limit for a test, which would not say
what the child had printed. Only a child that hangs takes that long, however busy the machine."""


def errors_in(stderr):
    """A child's output on stderr, without the messages of asyncio's debug mode about slow callbacks.

    On a busy machine any callback may be slow.
    """
    return re.sub(r"^Executing <.* took .* seconds\n", "", stderr, flags=re.M)


def run_child(program, env, arguments=(), options=()):
    """Run `program` and return its output. It must succeed and write nothing to stderr."""
    done = subprocess.run(
        [sys.executable, *options, "-c", program, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=CHILD_LIMIT,
        check=False,
    )
    assert (done.returncode, errors_in(done.stderr)) == (0, ""), done.stdout + done.stderr
    return done.stdout


def run_program(name, env, arguments=(), options=()):
    """Like `run_child`, with a file of tests/programs/."""
    return run_child((PROGRAMS / name).read_text(encoding="utf-8"), env, arguments, options)


# --- for the programs ---


def off_loop(function, *args):
    """Call `function` as code without a loop does, in a context without a processor."""
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return contextvars.Context().run(function, *args)
    finally:
        asyncio._set_running_loop(loop)


async def repeat(operation, times):
    """Call `operation` a number of times, and wait until everything that it dropped has been freed."""
    import aiopool

    for turn in range(times):
        running = operation()
        if running is not None:
            await running
        if turn % 100 == 0:
            await asyncio.sleep(0)
    while aiopool._core.freeing._queue:
        await asyncio.sleep(0)


def in_forks(function, times):
    """Call `function` a number of times, each time in the child of a fork, one after another."""
    for _ in range(times):
        pid = os.fork()
        if pid == 0:
            try:
                function()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, "the child failed"
