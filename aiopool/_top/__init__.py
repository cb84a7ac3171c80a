"""`python -m aiopool top PID`: shows what the pools of a running process do, without any preparation in that process.

From CPython 3.14 on, one process can have another process run a script (`sys.remote_exec`). The script runs in the main
thread of that process, between two bytecodes, and stops its loop meanwhile. So it reads only as many pools as it can in
a fraction of a millisecond, and a process with hundreds of pools runs it several times.

The modules, from the bottom up:

    look        the script, which runs in the other process and does not use this package
    wake        wakes a loop that waits, so that it runs the script
    process     running the script in another process, and everything that can go wrong
    snapshot    the statistics at one moment
    tables      tables of them, with rates since the last snapshot
    command     arguments and exit code
"""
