"""The algorithm: what a store is made of, whose it is, when cleanup happens, and how retired objects are freed.

Nothing here knows a pool. The modules import downwards only, in this order:

    loops → processor → shard → observation, registry, timers → freeing → cleanup → store → loop-bound store

Sums are taken over lists here, and callbacks are no lambdas: what is made of a function in the middle of a call is a
function of its own, and CPython 3.12 and 3.13 corrupt themselves when there is no memory to make one.
"""
