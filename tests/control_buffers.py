"""Negative controls: buffer pools that reuse too early. Tests must see them corrupt data."""


class PutByHand:
    """The code that acquired a buffer gives it back, whether or not anything else still refers to it."""

    def __init__(self):
        self.idle = []

    def acquire(self, n):
        """A view of `n` bytes, of the buffer given back last if there is one."""
        return memoryview(self.idle.pop() if self.idle else bytearray(1 << 23))[:n]

    def give_back(self, view):
        """The view's buffer is free, says the caller."""
        self.idle.append(view.obj)


class PutByFinalizer:
    """A buffer gives itself back, in its finalizer."""

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
