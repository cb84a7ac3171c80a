/* Beside _core/displacement.py: what a block that does not fit displaces.

   Without a GIL the private slot of another processor cannot be looked at. Blocks that lie there are displaced only where
   there is nothing else, by taking out all that their store holds, as clear() does. */

#pragma once

#include "block.h"

enum { MOST_DISPLACED = 1024, MOST_LOOKS = 256 };

/* A shard's oldest block, in its shared list or in private space. */
typedef struct {
    StoreObject *store; /* NULL: there is none */
    bool in_victim;
    bool in_private;
    Py_ssize_t id; /* of the processor */
    uint64_t since;
    Py_ssize_t size;
} Oldest; /* {0}: there is none */

/* For whom room is made. */
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

static ShardObject *
oldest_shard(const Oldest *place)
{
    ContentsObject *contents = place->store->contents;
    return shards_at(place->in_victim ? contents->victim : contents->primary, place->id);
}

/* The block that place leads to, with the lock of a shared list held; NULL: there is none, or the lock is not free. */
static BlockObject *
lock_oldest(const Oldest *place)
{
    ShardObject *shard = oldest_shard(place);
    Ring *ring = shard == NULL ? NULL : place->in_private ? &shard->private : &shard->shared;
    if (ring == NULL || count_read(&ring->count) == 0 || (!place->in_private && !lock_try(&shard->lock))) {
        return NULL;
    }
    PyObject *obj = count_read(&ring->count) == 0 ? NULL : ring->items[ring->first];
    /* Python code that finds the store can put anything there. */
    if (obj == NULL || !Py_IS_TYPE(obj, place->store->state->block_type) || !((BlockObject *)obj)->idle) {
        if (!place->in_private) {
            lock_release(&shard->lock);
        }
        return NULL;
    }
    return (BlockObject *)obj;
}

static void
unlock_oldest(const Oldest *place)
{
    if (!place->in_private) {
        lock_release(&oldest_shard(place)->lock);
    }
}

static bool
is_older(const Oldest *one, const Oldest *other)
{
    if (other->store == NULL || one->since != other->since) {
        return other->store == NULL || one->since < other->since;
    }
    return one->size > other->size; /* of those that came at the same time, one large instead of many small */
}

/* Looks at one shard. Between store_enter and store_leave. */
static void
look_at_shard(Oldest place, Asker asker, Oldest *oldest, uint64_t *next)
{
    for (int private = 0; private < 2; private++) {
        place.in_private = private;
        if (private && !may_look_at_private(asker, place.id)) {
            continue;
        }
        BlockObject *block = lock_oldest(&place);
        if (block == NULL) {
            continue;
        }
        place.since = block->idle_since;
        place.size = block->size;
        unlock_oldest(&place);
        if (is_older(&place, oldest)) {
            *next = oldest->store == NULL ? *next : oldest->since;
            *oldest = place;
        }
        else if (place.since < *next) {
            *next = place.since;
        }
    }
}

/* Looks at all shards of one store, or only at the asker's own one. */
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

/* The block that has been idle longest, and since when the next one is. False: it lies in the asker's own shard. There it
   is of the same size as the block that comes back, and one is as good as the other. */
static bool
find_oldest(BudgetObject *self, Asker asker, Oldest *oldest, uint64_t *next)
{
    Oldest own = {0};
    *oldest = own;
    *next = UINT64_MAX;
    look_at_store(asker.store, true, asker, &own, next);
    /* In a burst that is more than the budget, most stop here. */
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

/* The block there, if it is still as old as it was, or as old as the next one elsewhere; NULL: it is not. */
static BlockObject *
take_oldest(const Oldest *place, Asker asker, uint64_t next)
{
    store_enter(place->store, asker.runner);
    BlockObject *block = lock_oldest(place);
    if (block != NULL) {
        bool is_due = block->idle_since <= place->since || block->idle_since < next;
        ShardObject *shard = oldest_shard(place);
        if (is_due) {
            ring_pop_oldest(place->in_private ? &shard->private : &shard->shared);
        }
        unlock_oldest(place);
        block = is_due ? block : NULL;
    }
    store_leave(place->store, asker.runner);
    return block;
}

/* Free all that a store holds. Never raises. */
static void
empty_store(StoreObject *self)
{
    State *state = self->state;
    ShardsObject *retired[2];
    if (!store_take_out(self, retired)) {
        PyErr_Clear(); /* without memory it stays, until the next block comes back */
        return;
    }
    PyObject *processors = state->processors == NULL ? NULL : PyObject_CallNoArgs(state->processors);
    if (processors != NULL && PyList_CheckExact(processors)) {
        wait_for_busy(state, processors);
    }
    PyErr_Clear();
    Py_XDECREF(processors);
    for (int i = 0; i < 2; i++) {
        if (retired[i] != NULL) {
            /* No thread can come to them any more. And now: without a GIL they belong to the threads that made them, and
               would be deallocated by those, which may be asleep. */
            shards_clear(retired[i]);
            Py_DECREF(retired[i]);
        }
    }
}

/* Where all that is idle lies in private slots of other processors: that of the largest blocks. */
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

/* Count size more idle bytes, and free idle blocks until there is room for them. False: there is none.

   One thread at a time; another that comes meanwhile does not wait. What is freed here left its store before, and no lock
   is held meanwhile that a get or a put would want. */
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
