"""An object of a pooled fixture, and a record of what happens to it."""

import importlib.util

UVLOOP = ("asyncio", {"use_uvloop": importlib.util.find_spec("uvloop") is not None})
"""A backend for anyio; without uvloop, asyncio again."""

events = []


class Shop:
    """The object of a pooled fixture."""

    def __init__(self):
        self.orders = []
        self.broken = False


def say(text):
    events.append(text)
    print(f"<{text}>")
