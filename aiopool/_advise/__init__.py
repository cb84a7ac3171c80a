"""`python -m aiopool advise`: measures whether pooling pays off for one kind of object, and says so.

The answer depends on the cost of creating the object, of its first use and of its reset, on how many are in flight at
once, and on the C library: with glibc's defaults a large block is returned to the system and faulted in again each
time, and with other settings it is not. So each measurement runs in its own process, once with the current allocator
settings and once with a tuned allocator. A crash of the user's code ends that process, not the command.

The modules, from the bottom up:

    user_code    the user's expression and statements, compiled; errors that show the user's line
    loops        the loops that are timed, with the user's code inside
    measure      times, memory and the number of objects in flight
    process      the measuring process: `python -m aiopool._advise.process`
    results      the results, and the verdict
    allocators   the allocator in use, and how to tune it
    run          starts the processes and shows progress
    report       the tables
    plot         the times as an SVG file
    command      arguments and exit code
"""
