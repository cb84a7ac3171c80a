"""Finalizers of garbage that read their views once more, after other code has used the pool."""

import gc


class Observer(bytearray):
    """Reads its view once more in its finalizer, after other code has used the pool.

    Collectors finalize in different orders, but objects of one size by age, either the oldest or the newest first.
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
