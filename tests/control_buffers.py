"""Negative controls: buffer pools that reuse buffers too early. Tests must see them corrupt data."""


class PutByHand:
    """A pool to which the caller gives buffers back, even if something else still refers to them."""

    def __init__(self):
        self.idle = []

    def acquire(self, n):
        """A view of `n` bytes, of the buffer given back last if there is one."""
        return memoryview(self.idle.pop() if self.idle else bytearray(1 << 23))[:n]

    def give_back(self, view):
        """Reuse the view's buffer."""
        self.idle.append(view.obj)


class PutByFinalizer:
    """A pool to which each buffer gives itself back in its finalizer."""

    def __init__(self):
        self.idle = []

    def acquire(self, n):
        """A view of `n` bytes, of the buffer given back last if there is one."""
        return memoryview(self.idle.pop() if self.idle else _Finalized(self.idle))[:n]


class _Finalized(bytearray):
    def __init__(self, idle):
        super().__init__(1 << 16)
        self.idle = idle

    def __del__(self):
        self.idle.append(self)
