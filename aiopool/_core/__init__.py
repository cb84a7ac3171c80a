"""The algorithm: stores and their shards, processors, cleanup cycles, and how retired objects are freed.

Nothing here depends on the pools. Each module imports only from those before it in this order:

    loops → posted, processor → shard → observation, registry, timers → freeing → cleanup → store
    → departures, bound loops → loop-bound store

`sum` gets lists here, not generator expressions, and callbacks are not lambdas. Both would create a function object in
the middle of a call, and CPython 3.12 and 3.13 corrupt their state when there is no memory to create one.
"""
