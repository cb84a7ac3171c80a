"""The algorithm: what a store is made of, whose it is, when cleanup happens, and how retired objects are freed.

Nothing here knows a pool. The modules import downwards only, in this order:

    loops → processor → shard → observation, registry, timers → freeing → cleanup → store → loop-bound store
"""
