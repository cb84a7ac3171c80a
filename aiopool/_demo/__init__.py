"""What `python -m aiopool demo` does: a TCP server on real traffic, over asyncio's streams and over aiopool's.

A benchmark of a pool tells what a get costs, in nanoseconds. Whether the pool helps a server is another question, and
only a server can answer it, with the kernel, the event loop and real messages in the measurement. So the demo runs one,
loads it from another process, and says where pooling won and where it did not.

The modules, from the bottom up:

    wire        what a message and an answer look like, and the two kinds of streams
    loops       which event loop to use
    server      the loops that answer messages, over one kind of streams and the other
    load        the other process: sends messages and checks the answers
    results     from rounds to medians, ratios and verdicts
    measure     rounds of one kind and the other, and what each cost
    progress    what is shown while it works
    report      what is shown at the end
    run         all of it together

`load` runs in a process that must not need the extra `demo`; so only `measure`, `progress`, `report` and `run` import
from it.
"""
