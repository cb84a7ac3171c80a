/* The C version of _core/store.py: one pool's idle objects, and the order in which a get looks for one.

   With a GIL no other code runs during these functions, because each finishes its work on the shards before it calls
   anything that can run Python code. Without a GIL a shard stays alive while it is used in one of two ways. Code that
   runs as a processor marks it as busy: see processor.h. Off-loop code, and code that replaces generations, holds the
   store's lock, under which no Python code runs and no object is freed. Generations are exchanged under that lock, so
   when cycles and clears overlap, each generation is retired once. */

#pragma once

#include "contents.h"

typedef struct {
    PyObject_HEAD
    PyObject *module;
    State *state;
    PyObject *weakrefs;
    SHARED(ContentsObject *) contents;
    PyObject *label;
    PyObject *max_idle; /* or None */
    Py_ssize_t bound;   /* the same, or -1 */
    Py_ssize_t slots;
    double idle_timeout;
    Flag lock;
    Flag observed;
    Number fast_get; /* the primary's number, or 0 to use the slow path only */
    Number fast_put;
} StoreObject;

/* --- the fast path --- */

/* Let the fast paths use the primary, if they may. Call with the lock held. */
static void
store_publish(StoreObject *self)
{
    uint64_t number = self->observed ? 0 : self->contents->primary->number;
    self->fast_get = number;
    self->fast_put = self->bound < 0 ? number : 0;
}

static ShardObject *
store_remember_shard(StoreObject *self, IdentityObject *processor, Number *fast)
{
    ShardsObject *primary = self->contents->primary;
    ShardObject *shard = shards_at(primary, processor->id);
    if (shard == NULL || *fast != primary->number) { /* a cycle came in between, or only the slow path may be used */
        return NULL;
    }
    processor->remembered[primary->number % REMEMBERED] = (Remembered){primary->number, shard, shard->counters};
    return shard;
}

/* The processor's primary shard, valid as long as the processor is busy; NULL if the slow path must be used. */
static inline ShardObject *
own_shard(StoreObject *self, IdentityObject *processor, Number *fast)
{
    uint64_t generation = *fast;
    Remembered *remembered = &processor->remembered[generation % REMEMBERED];
    ShardObject *shard = remembered->shard;
    return remembered->generation == generation && shard != NULL ? shard : store_remember_shard(self, processor, fast);
}

/* private slot → own shared list, newest first. Sets counters, unless it returns NULL because there is no shard. */
static inline PyObject *
take_own(StoreObject *self, IdentityObject *processor, CountersObject **counters)
{
    ShardObject *shard = own_shard(self, processor, &self->fast_get);
    if (shard == NULL) {
        return NULL;
    }
    *counters = shard->counters;
    PyObject *obj = ring_pop_newest(&shard->private);
    if (obj != NULL) {
        count_add(&shard->counters->private_hits, 1);
        return obj;
    }
    obj = shard_pop(shard, ring_pop_newest);
    if (obj != NULL) {
        count_add(&shard->counters->shared, 1);
    }
    return obj;
}

/* private slot if free → own shared list. Steals the reference, unless it returns false because the slow path must put
   the object. */
static inline bool
keep_own(StoreObject *self, IdentityObject *processor, PyObject *obj)
{
    ShardObject *shard = own_shard(self, processor, &self->fast_put);
    if (shard == NULL || ring_holds(&shard->private, obj) || !shard_keep(shard, obj)) {
        return false;
    }
    count_add(&shard->counters->puts, 1);
    return true;
}

/* --- the slow path --- */

/* The processor that the slow path runs as. */
typedef struct {
    IdentityObject *processor; /* borrowed, because its thread keeps it alive; NULL: off-loop */
    Py_ssize_t id;
} Runner;

/* Call a Python function, except during interpreter shutdown, when that code may be gone already. Returns false if it
   raised. */
static bool
call_and_drop(PyObject *function, PyObject *first, PyObject *second)
{
    if (is_finalizing()) {
        return true;
    }
    PyObject *result = PyObject_CallFunctionObjArgs(function, first, second, NULL);
    Py_XDECREF(result);
    return result != NULL;
}

static double store_due(StoreObject *self);

/* Whether the processor's loop has a timer. Another thread may be setting it; a stale answer costs one call of Python. */
static bool
has_timer(IdentityObject *processor)
{
#ifdef Py_GIL_DISABLED
    return atomic_load_explicit(&processor->wakes_at, memory_order_relaxed) < Py_HUGE_VAL;
#else
    return processor->wakes_at < Py_HUGE_VAL;
#endif
}

/* Pin. Runs Python code at the first pin in a context, or if something may be due. Returns false if that raised. */
static bool
store_pin(StoreObject *self, Runner *runner)
{
    State *state = self->state;
    IdentityObject *processor = pin(state);
    if (processor == NULL && !is_off_loop(state)) {
        PyObject *found = is_finalizing() ? Py_NewRef(Py_None) : PyObject_CallNoArgs(state->pin);
        if (found == NULL) {
            return false;
        }
        processor = PyObject_TypeCheck(found, state->identity_type) ? (IdentityObject *)found : NULL;
        Py_DECREF(found);
    }
    *runner = (Runner){processor, processor == NULL ? 0 : processor->id};
    if (processor == NULL) {
        return coarse_monotonic() < store_due(self) || call_and_drop(state->check_time, (PyObject *)self, NULL);
    }
    /* If objects are idle but no timer is set, the thread runs a new loop, or the loop that had the timer has ended. */
    return has_timer(processor) || store_due(self) == Py_HUGE_VAL
           || call_and_drop(state->watch, (PyObject *)self, (PyObject *)processor);
}

static inline void
store_enter(StoreObject *self, Runner runner)
{
    if (runner.processor != NULL) {
        busy_begin(runner.processor);
    }
    else {
        lock_wait(&self->lock);
    }
}

static inline void
store_leave(StoreObject *self, Runner runner)
{
    if (runner.processor != NULL) {
        busy_end(runner.processor);
    }
    else {
        lock_release(&self->lock);
    }
}

/* The processor's counters, if it remembers them; otherwise NULL. A new reference. */
static CountersObject *
store_remembered_counters(StoreObject *self, IdentityObject *processor)
{
    busy_begin(processor);
    uint64_t generation = self->contents->primary->number;
    Remembered *remembered = &processor->remembered[generation % REMEMBERED];
    CountersObject *counters = remembered->generation == generation ? remembered->counters : NULL;
    Py_XINCREF(counters);
    busy_end(processor);
    return counters;
}

static void
store_remember_counters(StoreObject *self, IdentityObject *processor, CountersObject *counters, PyObject *of)
{
    busy_begin(processor);
    ContentsObject *contents = self->contents;
    uint64_t generation = contents->primary->number;
    Remembered *remembered = &processor->remembered[generation % REMEMBERED];
    if (remembered->generation != generation && contents->counters == of) {
        *remembered = (Remembered){generation, NULL, counters};
    }
    busy_end(processor);
}

/* The counters of runner, created if there are none yet. A new reference. */
static CountersObject *
store_counters(StoreObject *self, Runner runner)
{
    CountersObject *counters = runner.processor == NULL ? NULL : store_remembered_counters(self, runner.processor);
    if (counters != NULL) {
        return counters;
    }
    Runner none = {NULL, 0};
    store_enter(self, none);
    counters = runner.processor == NULL ? self->contents->off_loop : NULL;
    Py_XINCREF(counters);
    PyObject *known = counters == NULL ? Py_NewRef(self->contents->counters) : NULL;
    store_leave(self, none);
    if (counters != NULL) {
        return counters;
    }
    PyObject *key = PyLong_FromSsize_t(runner.id);
    PyObject *found = key == NULL ? NULL : dict_get(known, key);
    if (found == NULL && key != NULL && !PyErr_Occurred()) {
        PyObject *fresh = self->state->counters_type->tp_alloc(self->state->counters_type, 0);
        found = fresh == NULL ? NULL : Py_XNewRef(PyDict_SetDefault(known, key, fresh));
        Py_XDECREF(fresh);
    }
    counters = (CountersObject *)found;
    if (counters != NULL && runner.processor != NULL) {
        store_remember_counters(self, runner.processor, counters, known);
    }
    else if (counters != NULL) {
        store_enter(self, none);
        if (self->contents->counters == known) {
            self->contents->off_loop = counters;
        }
        store_leave(self, none);
    }
    Py_XDECREF(key);
    Py_DECREF(known);
    return counters;
}

/* Search all places in order, and count a hit or a miss. Returns NULL if nothing is idle. Call between store_enter and
   store_leave. */
static PyObject *
store_find(StoreObject *self, Runner runner, CountersObject *counters)
{
    ContentsObject *contents = self->contents;
    ShardsObject *primary = contents->primary, *victim = contents->victim;
    ShardObject *own = shards_at(primary, runner.id);
    PyObject *obj;
    if (own != NULL) {
        obj = ring_pop_newest(&own->private);
        if (obj != NULL) {
            count_add(&counters->private_hits, 1);
            return obj;
        }
        obj = shard_pop(own, ring_pop_newest);
        if (obj != NULL) {
            count_add(&counters->shared, 1);
            return obj;
        }
    }
    obj = shards_steal(primary, runner.id);
    if (obj != NULL) {
        count_add(&counters->stolen, 1);
        return obj;
    }
    /* Only the owner touches it: code that retires the shard later leaves the private slot alone. */
    own = shards_at(victim, runner.id);
    obj = own == NULL ? NULL : ring_pop_newest(&own->private);
    if (obj == NULL) {
        obj = shards_steal(victim, runner.id);
    }
    count_add(obj == NULL ? &counters->misses : &counters->victim, 1);
    return obj;
}

/* Returns NULL without an exception if nothing is idle. */
static PyObject *
store_take_as(StoreObject *self, Runner runner)
{
    CountersObject *counters = store_counters(self, runner);
    if (counters == NULL) {
        return NULL;
    }
    store_enter(self, runner);
    PyObject *obj = store_find(self, runner, counters);
    store_leave(self, runner);
    Py_DECREF(counters);
    return obj;
}

/* Count an event of the running code. Returns false if there is no memory. */
static bool
store_count(StoreObject *self, Runner runner, size_t offset, long long more)
{
    CountersObject *counters = store_counters(self, runner);
    if (counters == NULL) {
        return false;
    }
    store_enter(self, runner); /* because all off-loop threads share one set of counters */
    count_add(counter_at((PyObject *)counters, (void *)offset), more);
    store_leave(self, runner);
    Py_DECREF(counters);
    return true;
}

static bool
store_reject_as(StoreObject *self, Runner runner)
{
    return store_count(self, runner, offsetof(CountersObject, puts), 1)
           && store_count(self, runner, offsetof(CountersObject, rejected), 1);
}

/* Returns false, with an exception set, if obj is already in the private slot. */
static bool
store_admit_as(StoreObject *self, Runner runner, PyObject *obj)
{
    store_enter(self, runner);
    ShardObject *shard = shards_at(self->contents->primary, runner.id);
    bool held = runner.processor != NULL && shard != NULL && ring_holds(&shard->private, obj);
    store_leave(self, runner);
    if (held) {
        PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(obj), "__qualname__");
        if (name != NULL) {
            /* Without its contents, as in _checks.py. */
            PyErr_Format(PyExc_ValueError,
                         "<%U object at %p> was put already and is idle in %U: put each object once for each get", name,
                         (void *)obj, self->label);
            Py_DECREF(name);
        }
    }
    return !held;
}

/* Create a primary shard for the running code. Runs Python code. Returns false if it raised. */
static bool
store_add_shard(StoreObject *self, Runner runner)
{
    State *state = self->state;
    CountersObject *counters = store_counters(self, runner);
    Py_ssize_t slots = runner.processor == NULL ? 0 : self->slots;
    ShardObject *shard = counters == NULL ? NULL : shard_make(state, counters, slots);
    Py_XDECREF(counters);
    if (shard == NULL) {
        return false;
    }
    double now = monotonic();
    Runner none = {NULL, 0};
    store_enter(self, none);
    ContentsObject *contents = self->contents;
    ShardsObject *primary = contents->primary;
    if (!contents_have_shards(contents)) {
        contents->since = now;
    }
    bool reserved = shards_reserve(primary, runner.id);
    if (reserved && shards_at(primary, runner.id) == NULL) {
        *shards_slot(primary, runner.id) = (ShardObject *)Py_NewRef(shard);
        if (primary->end <= runner.id) {
            primary->end = runner.id + 1;
        }
    }
    store_leave(self, none);
    Py_DECREF(shard); /* unused if there is one already, from a finalizer, or off-loop from another thread */
    if (!reserved) {
        PyErr_NoMemory();
        return false;
    }
    PyObject *processor = runner.processor == NULL ? Py_None : (PyObject *)runner.processor;
    return call_and_drop(state->watch, (PyObject *)self, processor);
}

static Py_ssize_t
shards_idle_at(ShardsObject *shards, Py_ssize_t id)
{
    ShardObject *shard = shards_at(shards, id);
    return shard == NULL ? 0 : shard_length(shard);
}

/* Put obj; does not steal the reference. Returns 1 if it was kept, 0 if that would exceed max_idle and it was rejected,
   and -1 if this raised. */
static int
store_keep_as(StoreObject *self, Runner runner, PyObject *obj)
{
    for (;;) {
        store_enter(self, runner);
        ContentsObject *contents = self->contents;
        ShardObject *shard = shards_at(contents->primary, runner.id);
        bool full = self->bound >= 0
                    && shards_idle_at(contents->primary, runner.id) + shards_idle_at(contents->victim, runner.id)
                           >= self->bound;
        bool kept = false;
        if (shard != NULL && !full) {
            kept = shard_keep(shard, Py_NewRef(obj));
            if (kept) {
                count_add(&shard->counters->puts, 1);
            }
        }
        store_leave(self, runner);
        if (kept) {
            return 1;
        }
        if (full) {
            bool counted = store_reject_as(self, runner)
                           && store_count(self, runner, offsetof(CountersObject, over_max_idle), 1);
            return counted ? 0 : -1;
        }
        if (shard != NULL) {
            Py_DECREF(obj);
            PyErr_NoMemory();
            return -1;
        }
        if (!store_add_shard(self, runner)) {
            return -1;
        }
    }
}
