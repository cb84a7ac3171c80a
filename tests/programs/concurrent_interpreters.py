"""Several interpreters of one process use aiopool at once, end in any order, and pass buffers to each other.

Needs `concurrent.interpreters`, and so CPython 3.14. On free-threaded builds of 3.14, a buffer that another interpreter
dropped comes back only when its own interpreter ends; the same happens to plain CPython objects.
"""

import gc
import os
import sysconfig
import threading
from concurrent import interpreters

from shared import PROGRAMS

import aiopool

INTERPRETERS, BUFFERS, SIZE = 3, 20, 70_000
COME_BACK = not sysconfig.get_config_var("Py_GIL_DISABLED")

SENDS = (PROGRAMS / "in_interpreters" / "sends_buffers.py").read_text(encoding="utf-8")
CHANGES = (PROGRAMS / "in_interpreters" / "changes_a_buffer.py").read_text(encoding="utf-8")


def send(interpreter, mark):
    try:
        interpreter.prepare_main(queue=queue, mark=mark, count=BUFFERS, size=SIZE)
        interpreter.exec(SENDS)
        interpreter.exec(f'assert aiopool.implementation == "{aiopool.implementation}"')
    except BaseException as error:
        failures.append(error)


def collect(interpreter):
    """Run code in `interpreter`: it then gets back the buffers that other interpreters dropped."""
    interpreter.exec("import gc; gc.collect()")


failures = []
queue = interpreters.create_queue()

# Buffers of several interpreters, all of them here at the same time: each still holds what its interpreter wrote.
senders = [interpreters.create() for _ in range(INTERPRETERS)]
threads = [threading.Thread(target=send, args=(each, 60 * n)) for n, each in enumerate(senders)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures
received = [queue.get() for _ in range(INTERPRETERS * BUFFERS)]
assert all(bytes(view) == bytes([mark]) * SIZE for mark, view in received)
for sender in senders:
    sender.exec(f"assert buffers.stats().bytes_in_use >= {SIZE * BUFFERS}, 'reused while another interpreter sees it'")
received.clear()
gc.collect()
for each in senders:
    collect(each)
    if COME_BACK:
        each.exec("assert buffers.stats().bytes_in_use == 0, buffers.stats()")

# A buffer of this interpreter, in two others: no copy, and not reused before all of them have dropped it.
buffers = aiopool.BufferPool()
view = buffers.acquire(SIZE)
view[:] = bytes([5]) * SIZE
for n, each in enumerate(senders[:2]):
    each.prepare_main(view=view, mark=5 + n)
    each.exec(CHANGES)
assert bytes(view) == bytes([7]) * SIZE
in_use = buffers.stats().bytes_in_use
del view
gc.collect()
assert buffers.stats().bytes_in_use == in_use, "reused while another interpreter sees it"
other = buffers.acquire(SIZE)
other[:] = bytes(SIZE)
senders[1].exec("assert bytes(view) == bytes([7]) * len(view)")
for each in senders[:2]:
    each.exec("del view")
    collect(each)
gc.collect()
if COME_BACK:
    assert buffers.stats().bytes_in_use == in_use, "the buffer of two other interpreters never came back"

# They end in another order than they began, and one of them still holds views.
senders[1].close()
senders[0].close()
senders[2].exec("kept = [buffers.acquire(n) for n in (10, 1000, 5000)]; aiopool.BufferPool.kept = kept")
senders[2].close()
assert aiopool.Pool(list).get() == []
print("ok", flush=True)
os._exit(0)  # to test aiopool, not how CPython's shutdown handles modules that other interpreters imported
