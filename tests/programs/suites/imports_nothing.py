"""A suite that does not use aiopool."""

import sys


def test_nothing_was_imported():
    assert "pytest_aiopool" in sys.modules
    assert "aiopool" not in sys.modules
    # From Python 3.14 on pdb imports asyncio, and pytest imports pdb.
    if sys.version_info < (3, 14):
        assert "asyncio" not in sys.modules
