"""Which allocator is in use, and how to tune it.

glibc gives free memory at the top of its heap back to the system from 128 KiB on, and takes blocks of that size from
the system one by one. Both thresholds move only when large blocks are freed. Raised, they let large blocks be reused;
that costs the process memory which it holds but does not use. Other allocators keep such blocks anyway.
"""

import os
import platform
from pathlib import Path

TUNING = {
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the most that glibc documents
}
"""Environment variables that have glibc keep what is freed, in blocks of up to 32 MiB."""

_OTHERS = ("jemalloc", "tcmalloc", "mimalloc")


def allocator() -> str:
    """What the allocator of this process is called."""
    try:
        libraries = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        libraries = ""
    for other in _OTHERS:
        if other in libraries:
            return other
    name, version = platform.libc_ver()
    if name != "glibc":
        return "the C library's"
    settings = [f"{name}={os.environ[name]}" for name in TUNING if name in os.environ]
    return " ".join([f"glibc {version}", *(["with", *settings] if settings else [])])


def tuning() -> dict[str, str]:
    """What is to be set to have the allocator in use tuned; nothing where it is not glibc, or tuned already."""
    return {} if not allocator().startswith("glibc") or any(name in os.environ for name in TUNING) else TUNING
