"""The child processes of the command line, which ends them itself, also after Ctrl-C.

A terminal sends Ctrl-C to a whole group of processes. A child that ended first would be reported as having failed,
perhaps with a traceback of its own. A group of its own is not enough, because the child moves into it only after it has
been started. A blocked signal is inherited, so the child never receives it; neither do the processes that it starts.
"""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def child_process(command: list[str], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """Run `command` during a block. It has ended when the block has, even after an exception.

    `options` are those of Popen. Without asyncio there is no `await` at which Ctrl-C could come between the start and
    the block, and a thread that waits for a line gets an end of file when the process ends.
    """
    with contextlib.ExitStack() as starting:
        starting.enter_context(_ctrl_c_blocked())
        # Windows cannot block Ctrl-C, but creates a process in its own group.
        group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        with subprocess.Popen(command, creationflags=group, **options) as process:
            try:
                # Raises KeyboardInterrupt if Ctrl-C came meanwhile.
                starting.close()
                yield process
            finally:
                process.kill()


@contextlib.contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
