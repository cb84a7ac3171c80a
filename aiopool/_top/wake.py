"""Wakes a loop that waits, so that it runs the script, by interrupting its system call.

A script runs when its process next runs Python code, and an idle loop may not run any for hours. On Linux, a debugger
that stops a thread in `epoll_wait` and continues it makes that call return early, and Python then checks for pending
work. This takes some microseconds, has no other effect, and needs no more rights than running the script. It does not
help if the main thread waits for a lock, or in uvloop, which repeats the call without running Python code.
"""

import ctypes
import os
import sys
import time

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17

_WALL = 0x40000000
"""A flag of `waitpid`: wait for threads of all kinds."""

PATIENCE = 0.5
"""Seconds within which a thread must stop. A thread that waits for a disk may take longer, and is not woken."""


def interrupt_wait(pid: int) -> None:
    """End the wait of the main thread of `pid` early, if that is possible; otherwise do nothing."""
    if sys.platform != "linux":
        return
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.restype = ctypes.c_long
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if ptrace(_SEIZE, pid, None, None) < 0:
        return  # another debugger is attached, or the process has ended
    ptrace(_INTERRUPT, pid, None, None)
    give_up = time.monotonic() + PATIENCE
    try:
        while os.waitpid(pid, _WALL | os.WNOHANG) == (0, 0) and time.monotonic() < give_up:
            time.sleep(0.0001)
    except ChildProcessError:
        return  # it has ended
    ptrace(_DETACH, pid, None, None)
