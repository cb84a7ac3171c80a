"""Has a loop that waits for something run the script, by interrupting its wait.

A script runs when its process next runs Python code, and a loop with nothing to do may not run any for hours. On Linux
a debugger that stops a thread in `epoll_wait` and lets it go on ends that call early, and Python then looks at what
there is to do. It takes some microseconds, shows nowhere, and needs no more rights than to run the script. What else a
main thread may wait in goes on waiting: a lock, and uvloop, which asks again without Python's knowing.
"""

import ctypes
import os
import sys
import time

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17

_WALL = 0x40000000
"""For `waitpid`: threads of all kinds."""

PATIENCE = 0.5
"""Seconds within which a thread must stop. One that a disk holds up may take longer, and is let go."""


def interrupt_wait(pid: int) -> None:
    """End the wait of the main thread of `pid` early, if that is possible; else do nothing."""
    if sys.platform != "linux":
        return
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.restype = ctypes.c_long
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if ptrace(_SEIZE, pid, None, None) < 0:
        return  # a debugger has it, or it has ended
    ptrace(_INTERRUPT, pid, None, None)
    give_up = time.monotonic() + PATIENCE
    try:
        while os.waitpid(pid, _WALL | os.WNOHANG) == (0, 0) and time.monotonic() < give_up:
            time.sleep(0.0001)
    except ChildProcessError:
        return  # it has ended
    ptrace(_DETACH, pid, None, None)
