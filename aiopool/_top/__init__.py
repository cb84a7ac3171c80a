"""What `python -m aiopool top PID` does: it shows what the pools of a running process do, with nothing prepared there.

From CPython 3.14 on, one process can have another run a script (`sys.remote_exec`). It runs in the other's main thread,
between two bytecodes, so for as long as it takes that process's loop stands still. So a look takes as many pools as
fit into a part of a millisecond, and a process with hundreds of pools is looked at several times.

The modules, from the bottom up:

    look        the script: runs in the other process, and needs nothing of this package
    wake        has a loop that waits for something run the script
    process     one look at another process, and what can be wrong with it
    snapshot    what was seen
    tables      the same for people, with what happened since the last time
    command     arguments and exit code
"""
