"""What `python -m aiopool advise` does: it measures whether pooling pays for one kind of object, and says so.

The answer depends on what the object costs to create, to use for the first time and to reset, on how many are in flight
at once, and on the C library: with glibc's defaults a large block is given back to the system and faulted in again each
time, with other settings it is not. So each question is asked of a process of its own, once with the allocator as it
is and once with a tuned one. A crash of the user's code ends that process and not the command.

The modules, from the bottom up:

    user_code    the expression and what goes with it, compiled; errors that show the user's line
    loops        the loops that are timed, with the user's code inside
    measure      times, memory and how many can be in flight
    process      the process that measures: `python -m aiopool._advise.process`
    results      what was measured, and the verdict
    allocators   which allocator is in use, and how to tune it
    run          starts the processes and shows progress
    report       the tables
    plot         the same as an SVG file
    command      arguments and exit code
"""
