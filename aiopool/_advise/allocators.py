"""The allocator in use, and how to tune it.

glibc returns free memory at the top of its heap to the system when it exceeds 128 KiB, and gets blocks of that size or
more from the system one by one. By default both thresholds rise only when large blocks are freed. With higher
thresholds large blocks are reused, but the process holds memory that it does not use. Other allocators keep such blocks
anyway.
"""

import os
import platform
from pathlib import Path

TUNING = {
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the most that glibc documents
}
"""Environment variables that make glibc keep freed blocks of up to 32 MiB."""

_OTHERS = ("jemalloc", "tcmalloc", "mimalloc")


def allocator() -> str:
    """The name of this process's allocator."""
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
    """The environment variables that tune the allocator; empty if it is not glibc, or is already tuned."""
    return {} if not allocator().startswith("glibc") or any(name in os.environ for name in TUNING) else TUNING
