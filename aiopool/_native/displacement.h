/* The C version of _core/displacement.py: a block that does not fit replaces blocks that have been idle longer.

   Without a GIL the private slot of another processor must not be read. Blocks in such slots are displaced only if
   there are no others, by emptying their whole store, as clear() does. */

#pragma once

#include "block.h"

enum { MOST_DISPLACED = 1024, MOST_LOOKS = 256 };

/* The place of a shard's oldest block, in its shared list or its private list. */
typedef struct {
    StoreObject *store; /* NULL: there is none */
    bool in_victim;
    bool in_private;
    Py_ssize_t id; /* of the processor */
    uint64_t since;
    Py_ssize_t size;
} Oldest; /* {0}: there is none */

/* The put that needs room. */
typedef struct {
    StoreObject *store;
    Runner runner;
} Asker;

#ifdef Py_GIL_DISABLED
static bool
may_look_at_private(Asker asker, Py_ssize_t id)
{
    return asker.runner.processor != NULL && asker.runner.id == id;
}
#else
static bool
may_look_at_private(Asker Py_UNUSED(asker), Py_ssize_t Py_UNUSED(id))
{
    return true;
}
#endif

/* The list of the shard that the place is in. */
static inline Ring *
ring_at(const Oldest *place, ShardObject *shard)
{
    return place->in_private ? &shard->private : &shard->shared;
}

static inline void
unlock_ring(const Oldest *place, ShardObject *shard)
{
    if (!place->in_private) {
        lock_release(&shard->lock);
    }
}

/* Return the shard at that place, with its list locked if that is the shared one, and set *block to its oldest block.
   NULL if it has none, or if the list is already locked. The shard is looked up once and kept: another thread may
   replace the generations at any moment, and then there is another shard at the place, or none. Call between
   store_enter and store_leave. */
static ShardObject *
lock_oldest(const Oldest *place, BlockObject **block)
{
    ContentsObject *contents = place->store->contents;
    ShardObject *shard = shards_at(place->in_victim ? contents->victim : contents->primary, place->id);
    Ring *ring = shard == NULL ? NULL : ring_at(place, shard);
    if (ring == NULL || count_read(&ring->count) == 0 || (!place->in_private && !lock_try(&shard->lock))) {
        return NULL;
    }
    PyObject *obj = count_read(&ring->count) == 0 ? NULL : ring->items[ring->first];
    /* It may not be a block, because Python code that finds the store can put anything there. */
    if (obj == NULL || !Py_IS_TYPE(obj, place->store->state->block_type) || !((BlockObject *)obj)->idle) {
        unlock_ring(place, shard);
        return NULL;
    }
    *block = (BlockObject *)obj;
    return shard;
}

static bool
is_older(const Oldest *one, const Oldest *other)
{
    if (other->store == NULL || one->since != other->since) {
        return other->store == NULL || one->since < other->since;
    }
    return one->size > other->size; /* among equally old blocks, one large block goes rather than many small ones */
}

/* Update oldest and next with the blocks of one shard. Call between store_enter and store_leave. */
static void
look_at_shard(Oldest place, Asker asker, Oldest *oldest, uint64_t *next)
{
    for (int private = 0; private < 2; private++) {
        place.in_private = private;
        if (private && !may_look_at_private(asker, place.id)) {
            continue;
        }
        BlockObject *block;
        ShardObject *shard = lock_oldest(&place, &block);
        if (shard == NULL) {
            continue;
        }
        place.since = block->idle_since;
        place.size = block->size;
        unlock_ring(&place, shard);
        if (is_older(&place, oldest)) {
            *next = oldest->store == NULL ? *next : oldest->since;
            *oldest = place;
        }
        else if (place.since < *next) {
            *next = place.since;
        }
    }
}

/* The same with all shards of a store except the asker's own, or with only that one. */
static void
look_at_store(StoreObject *store, bool only_own, Asker asker, Oldest *oldest, uint64_t *next)
{
    store_enter(store, asker.runner);
    ContentsObject *contents = store->contents;
    for (int victim = 0; victim < 2; victim++) {
        ShardsObject *shards = victim ? contents->victim : contents->primary;
        Py_ssize_t end = shards == NULL ? 0 : shards->end;
        for (Py_ssize_t id = 0; id < end; id++) {
            bool is_own = store == asker.store && id == asker.runner.id;
            if (is_own == only_own) {
                look_at_shard((Oldest){store, victim, false, id, 0, 0}, asker, oldest, next);
            }
        }
    }
    store_leave(store, asker.runner);
}

/* Find the block that has been idle longest, and since when the next one has been idle. Returns false if that block
   is in the asker's own shard: it has the same size as the block that comes back, so replacing it would gain
   nothing. */
static bool
find_oldest(BudgetObject *self, Asker asker, Oldest *oldest, uint64_t *next)
{
    Oldest own = {0};
    *oldest = own;
    *next = UINT64_MAX;
    look_at_store(asker.store, true, asker, &own, next);
    /* In a burst that exceeds the budget, most puts stop here. */
    if (own.store != NULL && own.since <= self->oldest_since) {
        return false;
    }
    *next = own.store == NULL ? UINT64_MAX : own.since;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->stores); i++) {
        look_at_store((StoreObject *)PyTuple_GET_ITEM(self->stores, i), false, asker, oldest, next);
    }
    bool is_own = own.store != NULL && (oldest->store == NULL || own.since <= oldest->since);
    if (is_own || oldest->store != NULL) {
        self->oldest_since = is_own ? own.since : oldest->since;
    }
    return !is_own;
}

/* Take the block at that place, if it is still as old as it was, or older than the next one; otherwise return NULL. */
static BlockObject *
take_oldest(const Oldest *place, Asker asker, uint64_t next)
{
    BlockObject *block = NULL;
    store_enter(place->store, asker.runner);
    ShardObject *shard = lock_oldest(place, &block);
    if (shard != NULL) {
        if (block->idle_since <= place->since || block->idle_since < next) {
            ring_pop_oldest(ring_at(place, shard));
        }
        else {
            block = NULL;
        }
        unlock_ring(place, shard);
    }
    store_leave(place->store, asker.runner);
    return block;
}

/* Free all idle objects of a store. Never raises. */
static void
empty_store(StoreObject *self)
{
    ShardsObject *retired[2];
    if (!store_take_out(self, retired)) {
        PyErr_Clear(); /* no memory: the objects stay until the next block comes back */
        return;
    }
    wait_for_busy(self->state);
    for (int i = 0; i < 2; i++) {
        if (retired[i] != NULL) {
            /* No thread gets or puts here any more; at most, one that collects statistics reads the counts. The shards
               are emptied here, because without a GIL they belong to the threads that created them, which may be asleep
               and would have to deallocate them. */
            shards_clear(retired[i]);
            Py_DECREF(retired[i]);
        }
    }
}

/* Empty the store with the largest blocks. Called when all idle blocks are in private slots of other processors. */
static void
displace_private(BudgetObject *self)
{
    for (Py_ssize_t i = PyTuple_GET_SIZE(self->stores) - 1; i >= 0; i--) {
        StoreObject *store = (StoreObject *)PyTuple_GET_ITEM(self->stores, i);
        Py_ssize_t idle = store_idle(store);
        if (idle > 0 && !is_finalizing()) {
            empty_store(store);
            return;
        }
    }
}

/* Count size more idle bytes, after freeing idle blocks to make room. Returns false if there is no room.

   Only one thread at a time does this; others do not wait for it. A block is removed from its store before it is freed,
   and no lock that a get or a put needs is held meanwhile. */
static OUT_OF_LINE bool
budget_reserve_displacing(BudgetObject *self, StoreObject *store, IdentityObject *processor, Py_ssize_t size)
{
    if (size > count_read(&self->limit) || !lock_try(&self->displacing)) {
        return false;
    }
    Asker asker = {store, {processor, processor == NULL ? 0 : processor->id}};
    bool reserved = false;
    int left = MOST_DISPLACED;
    Oldest oldest;
    uint64_t next;
    for (int look = 0; look < MOST_LOOKS && left > 0 && !reserved && find_oldest(self, asker, &oldest, &next); look++) {
        if (oldest.store == NULL) {
            displace_private(self);
            reserved = budget_reserve(self, processor, size);
            break;
        }
        BlockObject *block = take_oldest(&oldest, asker, next);
        for (; block != NULL && !reserved; left--) {
            count_add(&block->size_class->displaced, 1);
            Py_DECREF(block);
            reserved = budget_reserve(self, processor, size);
            block = reserved || left == 1 ? NULL : take_oldest(&oldest, asker, next);
        }
    }
    lock_release(&self->displacing);
    return reserved;
}
