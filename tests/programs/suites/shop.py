"""Something that is pooled, and what happens to it."""

import importlib.util

UVLOOP = ("asyncio", {"use_uvloop": importlib.util.find_spec("uvloop") is not None})
"""A backend for anyio; where there is no uvloop, asyncio once more."""

events = []


class Shop:
    """What a pooled fixture gives."""

    def __init__(self):
        self.orders = []
        self.broken = False


def say(text):
    events.append(text)
    print(f"<{text}>")
