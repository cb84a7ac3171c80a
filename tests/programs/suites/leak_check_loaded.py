"""Whether the leak check is loaded: if $LOADED is set."""

import os
import sys


def test_last():
    assert ("aiopool.testing._leak_check" in sys.modules) == ("LOADED" in os.environ)
