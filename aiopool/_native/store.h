/* Beside _core/store.py: one pool's idle objects, and the order in which a get looks for one.

   With a GIL nothing else runs while we are in here: each function finishes its work on the shards before it calls
   anything that can run Python code. Without one, two things keep a shard alive while it is used. Code that runs as a
   processor is busy meanwhile: see processor.h. Off-loop code, and code that changes which generations there are, holds
   the store's lock, in which no Python code runs and no object dies. Generations are exchanged under that lock, so
   whatever cycles and clears run into each other, each generation is retired once. */

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
    Number fast_get; /* the primary's number, or 0: all is left to the slow path */
    Number fast_put;
} StoreObject;

/* --- the fast path --- */

/* Let the fast paths see the primary, or nothing. With the lock held. */
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
    if (shard == NULL || *fast != primary->number) { /* a cycle came between, or this is the slow path's */
        return NULL;
    }
    processor->remembered[primary->number % REMEMBERED] = (Remembered){primary->number, shard, shard->counters};
    return shard;
}

/* The processor's primary shard, for as long as the processor is busy; NULL: the slow path must see to it. */
static inline ShardObject *
own_shard(StoreObject *self, IdentityObject *processor, Number *fast)
{
    uint64_t generation = *fast;
    Remembered *remembered = &processor->remembered[generation % REMEMBERED];
    ShardObject *shard = remembered->shard;
    return remembered->generation == generation && shard != NULL ? shard : store_remember_shard(self, processor, fast);
}

/* private slot → own shared list, newest first. Tells the counters if there is an object. */
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

/* private slot if free → own shared list. Takes over the reference. False: the slow path must see to it. */
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

/* Whom the code runs as, on the slow path. */
typedef struct {
    IdentityObject *processor; /* borrowed: its thread keeps it; NULL: off-loop */
    Py_ssize_t id;
} Runner;

/* Runs Python code, but not while the interpreter goes: that code may be gone already. False: it raised. */
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

/* Another thread may just set the time. Seen late, it costs one call of Python. */
static bool
has_timer(IdentityObject *processor)
{
#ifdef Py_GIL_DISABLED
    return atomic_load_explicit(&processor->wakes_at, memory_order_relaxed) < Py_HUGE_VAL;
#else
    return processor->wakes_at < Py_HUGE_VAL;
#endif
}

/* Pin. Runs Python code where this is the first pin in a context, or something may be due. False: it raised. */
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
    /* What is idle wants a timer, and there is none: the thread came to another loop. */
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

/* The processor's counters, if it remembers them. A new reference. */
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

/* A new reference; NULL with an exception: no memory. */
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
    PyObject *found = key == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(known, key));
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

/* The whole way of a get, between store_enter and store_leave; NULL: nothing is idle. Counts. */
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
    /* Still touched by its owner only: code that retires it later leaves the private slot alone. */
    own = shards_at(victim, runner.id);
    obj = own == NULL ? NULL : ring_pop_newest(&own->private);
    if (obj == NULL) {
        obj = shards_steal(victim, runner.id);
    }
    count_add(obj == NULL ? &counters->misses : &counters->victim, 1);
    return obj;
}

/* NULL without an exception: nothing is idle. */
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

/* Count an event of the running code. False: no memory. */
static bool
store_count(StoreObject *self, Runner runner, size_t offset, long long more)
{
    CountersObject *counters = store_counters(self, runner);
    if (counters == NULL) {
        return false;
    }
    store_enter(self, runner); /* off-loop many threads count */
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

/* Whether a put of obj raises, because it is idle here already. */
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
            /* Without what it contains, as in _checks.py. */
            PyErr_Format(PyExc_ValueError,
                         "<%U object at %p> was put already and is idle in %U: put each object once for each get", name,
                         (void *)obj, self->label);
            Py_DECREF(name);
        }
    }
    return !held;
}

/* Have a primary shard for the running code. Runs Python code. False: it raised. */
static bool
store_add_shard(StoreObject *self, Runner runner)
{
    State *state = self->state;
    CountersObject *counters = store_counters(self, runner);
    ShardObject *shard = counters == NULL ? NULL : shard_make(state, counters, runner.processor == NULL ? 0 : self->slots);
    Py_XDECREF(counters);
    if (shard == NULL) {
        return false;
    }
    double now = monotonic();
    Runner none = {NULL, 0};
    store_enter(self, none);
    ContentsObject *contents = self->contents;
    ShardsObject *primary = contents->primary;
    if (primary->end == 0 && (contents->victim == NULL || contents->victim->end == 0)) {
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
    Py_DECREF(shard); /* another may have been first: a finalizer, or off-loop another thread */
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

/* Put obj. Does not take over the reference. 0: it is over max_idle, and rejected. -1: it raised. */
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
            return store_reject_as(self, runner) ? 0 : -1;
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
