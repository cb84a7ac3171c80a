"""Helpers for test suites: see docs/testing.md. `pytest_aiopool` is the plugin that pytest loads."""

from typing import TYPE_CHECKING, Any

from ._background_loop import LoopBound
from ._isolation import isolated
from ._pooled_fixture import pooled_fixture

if TYPE_CHECKING:
    from ._fed_reader import FedReader

__all__ = ["FedReader", "LoopBound", "isolated", "pooled_fixture"]


def __getattr__(name: str) -> Any:
    """`FedReader` is imported when it is first used, because most test suites do not use streams."""
    if name == "FedReader":
        from ._fed_reader import FedReader

        return FedReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
