"""Builds the compiled twin where that is possible; everything else is in pyproject.toml."""

import os
from binascii import crc32
from pathlib import Path

from setuptools import Extension, setup

SOURCES = sorted(Path("aiopool").glob("_native*.[ch]"))

# Optional: without a compiler the install succeeds with a warning, and the Python implementation is used.
native = Extension(
    "aiopool._native",
    ["aiopool/_native.c"],
    depends=[source.as_posix() for source in SOURCES],
    # Which sources it was built from, so that a stale one can be told in a checkout. 31 bits fit a C long anywhere.
    define_macros=[("AIOPOOL_SOURCE", str(crc32(b"".join(map(Path.read_bytes, SOURCES))) & 0x7FFFFFFF))],
    extra_compile_args=["/std:c11", "/experimental:c11atomics"] if os.name == "nt" else ["-std=c11"],
    optional=True,
)

setup(ext_modules=[] if os.environ.get("AIOPOOL_NO_EXTENSIONS") else [native])
