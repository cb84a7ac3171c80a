"""Builds the C extension if possible, and the README for the index; everything else is in pyproject.toml."""

import os
import re
from binascii import crc32
from pathlib import Path

from setuptools import Extension, setup

SOURCES = sorted(Path("aiopool/_native").glob("*.[ch]"))

extension = Extension(
    "aiopool._native._extension",
    ["aiopool/_native/native.c"],
    depends=[source.as_posix() for source in SOURCES],
    # A checksum of the sources, so that a stale extension is noticed in a checkout. 31 bits fit a C long anywhere.
    define_macros=[("AIOPOOL_SOURCE", str(crc32(b"".join(map(Path.read_bytes, SOURCES))) & 0x7FFFFFFF))],
    extra_compile_args=["/std:c11", "/experimental:c11atomics"] if os.name == "nt" else ["-std=c11"],
    # Without a compiler the install succeeds with a warning, and the Python implementation is used.
    optional=not os.environ.get("AIOPOOL_REQUIRE_NATIVE"),
)

# Relative links lead nowhere on the package index.
REPOSITORY = "aiosyncpool/aiosyncpool"
README = Path("README.md").read_text(encoding="utf-8")
README = re.sub(r"\]\((?!https:)", f"](https://github.com/{REPOSITORY}/blob/main/", README)
README = re.sub(r'(src|srcset)="', rf'\1="https://raw.githubusercontent.com/{REPOSITORY}/main/', README)

setup(
    long_description=README,
    long_description_content_type="text/markdown",
    ext_modules=[] if os.environ.get("AIOPOOL_NO_EXTENSIONS") else [extension],
)
