"""Views that are alive at the end of an interpreter, one interpreter after another."""

import os

import _interpreters as interpreters
from shared import PROGRAMS

import aiopool

PROGRAM = (PROGRAMS / "in_interpreters" / "leaves_views.py").read_text(encoding="utf-8")
PROGRAM += f'assert aiopool.implementation == "{aiopool.implementation}"'

for _ in range(3):
    id = interpreters.create()
    failure = interpreters.run_string(id, PROGRAM)
    interpreters.destroy(id)
    assert failure is None, failure
print("ok", flush=True)
os._exit(0)  # to test aiopool, not how CPython's shutdown handles modules that other interpreters imported
