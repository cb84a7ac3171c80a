"""Helpers for test suites. docs/testing.md says how to use them, and `pytest_aiopool` is the plugin pytest loads."""

from ._background_loop import LoopBound
from ._isolation import isolated
from ._pooled_fixture import pooled_fixture

__all__ = ["LoopBound", "isolated", "pooled_fixture"]
