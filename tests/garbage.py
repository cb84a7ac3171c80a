"""Finalizers of garbage that look at their views once more, after others have used the pool."""

import gc


class Observer(bytearray):
    """Looks at its view once more when it dies, after others have used the pool.

    Collectors differ in whom they finalize first, but among objects of one size they go by their age, this way or that.
    """

    def __init__(self, pool, log):
        super().__init__()
        self.pool, self.log = pool, log

    def __del__(self):
        others = [self.pool.acquire(1000) for _ in range(3)]
        for other in others:
            other[:] = b"B" * 1000
        self.log.append(bytes(self.view))


def a_cycle(pool, log):
    before = Observer(pool, log)
    view = pool.acquire(1000)
    view[:] = b"A" * 1000
    after = Observer(pool, log)
    before.view, after.view = view, view[:500]
    before.other, after.other = after, before


def seen_by_finalizers(pool, generation):
    log = []
    for _ in range(20):
        a_cycle(pool, log)
    gc.collect(generation)
    assert len(log) == 40
    return log
