"""Chains of objects that hold each other through a pool: dropping the first does not overflow the C stack."""

import gc

import aiopool

gc.disable()

COUNT = 300_000


def borrows(chain):
    pool.put(chain)
    block = pool.borrow()
    assert block.__enter__() is chain
    return block


def awaitables(chain):
    pool.put(chain)
    coming = pool.borrow().__aenter__()
    if aiopool.implementation == "python":
        try:
            coming.send(None)
        except StopIteration as stop:
            return [stop.value]
    return coming


def shards(chain):
    pool.put(chain)
    _, shard = pool._store.shards()[0]
    pool._store.set_aside()
    return shard


def contents(chain):
    pool.put(chain)
    return pool._store.set_aside()


def pools(chain):
    outer = aiopool.Pool()
    outer.put(chain)
    return outer


for link, count in {
    borrows: COUNT,
    awaitables: COUNT,
    shards: COUNT // 5,
    contents: COUNT // 5,
    pools: COUNT // 10,
}.items():
    pool = aiopool.Pool()
    end = chain = aiopool.Pool()
    for _ in range(count):
        chain = link(chain)
    gc.collect()  # it follows the chain, and finds it in use
    chain = None
    gc.collect()
    pool.put(end)
    assert pool.get() is end
print("ok")
