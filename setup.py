"""Builds the C extension where that is possible; everything else is in pyproject.toml."""

import os
from binascii import crc32
from pathlib import Path

from setuptools import Extension, setup

SOURCES = sorted(Path("aiopool/_native").glob("*.[ch]"))

extension = Extension(
    "aiopool._native._extension",
    ["aiopool/_native/native.c"],
    depends=[source.as_posix() for source in SOURCES],
    # Which sources it was built from, so that a stale one is noticed in a checkout. 31 bits fit a C long anywhere.
    define_macros=[("AIOPOOL_SOURCE", str(crc32(b"".join(map(Path.read_bytes, SOURCES))) & 0x7FFFFFFF))],
    extra_compile_args=["/std:c11", "/experimental:c11atomics"] if os.name == "nt" else ["-std=c11"],
    # Without a compiler the install succeeds with a warning, and the Python implementation is used.
    optional=not os.environ.get("AIOPOOL_REQUIRE_NATIVE"),
)

setup(ext_modules=[] if os.environ.get("AIOPOOL_NO_EXTENSIONS") else [extension])
