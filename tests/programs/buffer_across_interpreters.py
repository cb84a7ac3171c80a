"""A view that another interpreter sees too: its block is reused after both have dropped it."""

import gc
from concurrent import interpreters

import aiopool

pool = aiopool.BufferPool()
queue = interpreters.create_queue()
other = interpreters.create()
other.prepare_main(queue=queue)

view = pool.acquire(1000)
view[:] = b"a" * 1000
queue.put(view)
other.exec("view = queue.get(); assert bytes(view) == b'a' * 1000; view[:] = b'b' * 1000")
assert bytes(view) == b"b" * 1000, "a copy"
del view
gc.collect()
assert pool.stats().bytes_in_use == 1024, "reused while another interpreter sees it"
others = [pool.acquire(1000) for _ in range(3)]
for each in others:
    each[:] = b"c" * 1000
other.exec("assert bytes(view) == b'b' * 1000; del view")
del each, others
gc.collect()
assert pool.stats().bytes_in_use == 0, "never comes back"
assert pool.acquire(1000).nbytes == 1000
other.close()
print("ok")
