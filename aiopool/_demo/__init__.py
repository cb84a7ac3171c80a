"""`python -m aiopool demo`: a TCP server with real traffic, over asyncio's streams and over aiopool's.

A benchmark of a pool shows what a get costs, in nanoseconds. Whether the pool helps a server can only be measured on a
server, with the kernel, the event loop and real messages included. So the demo runs a server, sends it messages from
another process, and says where pooling won and where it did not.

The modules, from the bottom up:

    wire        the format of messages and answers, and the two kinds of streams
    loops       the choice of the event loop
    server      loops that answer messages, over both kinds of streams
    load        the other process, which sends messages and checks the answers
    results     medians, ratios and verdicts of rounds
    measure     alternating rounds over both kinds of streams
    progress    the display during the measurement
    report      the report at the end
    run         the whole demo

`load` runs in a process that must work without the extra `demo`, so only `measure`, `progress`, `report` and `run` may
import its packages.
"""
