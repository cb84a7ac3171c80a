/* Beside _core/store.py: one pool's idle objects, and the order in which a get looks for one.

   With a GIL nothing else runs while we are in here: each function finishes its work on the shards before it calls
   anything that can run Python code. Without one, two things keep a shard alive while it is used. Code that runs as a
   processor is busy meanwhile: see processor.h. Off-loop code, and code that changes which generations there are, holds
   the store's lock, in which no Python code runs and no object dies. Generations are exchanged under that lock, so
   whatever cycles and clears run into each other, each generation is retired once. */

#pragma once

#include "shards.h"

/* What a store holds and has counted. */
typedef struct {
    PyObject_HEAD
    SHARED(ShardsObject *) primary; /* never NULL */
    SHARED(ShardsObject *) victim;  /* or NULL */
    PyObject *counters;             /* a dict, by processor id; entries are never removed */
    CountersObject *off_loop;       /* the one for id 0, borrowed; NULL: there is none yet. With the lock held */
    Count cycles;
    double since; /* when the primary was last replaced, or began to fill; with the lock held */
    void *owner;  /* the store whose contents they are, to be compared with only: its lock guards them */
} ContentsObject;

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

/* --- Contents --- */

static ContentsObject *
contents_make(State *state, void *owner)
{
    ContentsObject *self = (ContentsObject *)state->contents_type->tp_alloc(state->contents_type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->primary = shards_make(state);
    self->counters = PyDict_New();
    self->since = monotonic();
    self->owner = owner;
    if (self->primary == NULL || self->counters == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

static int
contents_traverse(ContentsObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->counters);
    Py_VISIT((PyObject *)self->primary);
    Py_VISIT((PyObject *)self->victim);
    return 0;
}

static void
contents_dealloc(ContentsObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF((PyObject *)self->primary);
    Py_XDECREF((PyObject *)self->victim);
    Py_XDECREF(self->counters);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot contents_slots[] = {
    {Py_tp_doc, "What a store holds and has counted."},
    {Py_tp_dealloc, contents_dealloc},
    {Py_tp_traverse, contents_traverse},
    {0, NULL},
};

static PyType_Spec contents_spec = {
    "aiopool._native._extension.Contents", sizeof(ContentsObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, contents_slots,
};

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
    return processor->wakes_at < Py_HUGE_VAL || store_due(self) == Py_HUGE_VAL
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

/* --- retiring --- */

/* A list of what is not NULL; takes over the references. NULL with an exception: no memory, and they are freed. */
static PyObject *
retired_list(ShardsObject *first, ShardsObject *second)
{
    PyObject *list = PyList_New(0);
    PyObject *retired[] = {(PyObject *)first, (PyObject *)second};
    for (int i = 0; i < 2; i++) {
        if (list != NULL && retired[i] != NULL && PyList_Append(list, retired[i]) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(retired[i]);
    }
    return list;
}

static PyObject *
store_rotate(StoreObject *self, PyObject *Py_UNUSED(ignored))
{
    Runner none = {NULL, 0};
    ShardsObject *fresh = shards_make(self->state);
    if (fresh == NULL) {
        return NULL;
    }
    double now = monotonic();
    store_enter(self, none);
    ContentsObject *contents = self->contents;
    ShardsObject *retired = contents->victim;
    contents->victim = contents->primary;
    contents->primary = fresh;
    contents->since = now;
    count_add(&contents->cycles, 1);
    store_publish(self);
    store_leave(self, none);
    return retired_list(retired, NULL);
}

/* Takes out both generations. False: no memory. */
static bool
store_take_out(StoreObject *self, ShardsObject *retired[2])
{
    Runner none = {NULL, 0};
    ShardsObject *fresh = shards_make(self->state);
    if (fresh == NULL) {
        return false;
    }
    store_enter(self, none);
    ContentsObject *contents = self->contents;
    retired[0] = contents->primary;
    retired[1] = contents->victim;
    contents->primary = fresh;
    contents->victim = NULL;
    store_publish(self);
    store_leave(self, none);
    return true;
}

static PyObject *
store_clear(StoreObject *self, PyObject *Py_UNUSED(ignored))
{
    ShardsObject *retired[2];
    return store_take_out(self, retired) ? retired_list(retired[0], retired[1]) : NULL;
}

static Py_ssize_t
store_idle(StoreObject *self)
{
    Runner none = {NULL, 0};
    store_enter(self, none);
    Py_ssize_t idle = shards_idle(self->contents->primary) + shards_idle(self->contents->victim);
    store_leave(self, none);
    return idle;
}

static PyObject *
store_forget_empty(StoreObject *self, PyObject *Py_UNUSED(ignored))
{
    return store_idle(self) == 0 ? store_clear(self, NULL) : PyList_New(0);
}

static ContentsObject *
store_exchange_contents(StoreObject *self, ContentsObject *contents)
{
    Runner none = {NULL, 0};
    store_enter(self, none);
    ContentsObject *before = self->contents;
    self->contents = contents;
    store_publish(self);
    store_leave(self, none);
    return before;
}

static PyObject *
store_set_aside(StoreObject *self, PyObject *Py_UNUSED(ignored))
{
    ContentsObject *fresh = contents_make(self->state, self);
    return fresh == NULL ? NULL : (PyObject *)store_exchange_contents(self, fresh);
}

static PyObject *
store_bring_back(StoreObject *self, PyObject *kept)
{
    if (!Py_IS_TYPE(kept, self->state->contents_type) || ((ContentsObject *)kept)->owner != self) {
        return PyErr_Format(PyExc_TypeError, "bring_back() takes what set_aside() returned, not %.80R", kept);
    }
    ShardsObject *retired[2];
    PyObject *processors;
    if (!store_take_out(self, retired)) {
        return NULL;
    }
    PyObject *list = retired_list(retired[0], retired[1]);
    ContentsObject *passing = store_exchange_contents(self, (ContentsObject *)Py_NewRef(kept));
    /* A thread that found the passing contents may still be using them. */
    processors = PyObject_CallNoArgs(self->state->processors);
    if (processors != NULL && PyList_Check(processors)) {
        wait_for_busy(self->state, processors);
    }
    PyErr_Clear();
    Py_XDECREF(processors);
    Py_DECREF(passing);
    return list == NULL ? PyErr_NoMemory() : list;
}

static PyObject *
store_observe(StoreObject *self, PyObject *observed)
{
    Runner none = {NULL, 0};
    int truth = PyObject_IsTrue(observed);
    if (truth < 0) {
        return NULL;
    }
    store_enter(self, none);
    self->observed = truth;
    store_publish(self);
    store_leave(self, none);
    Py_RETURN_NONE;
}

/* --- looking at it --- */

/* All shards, each with its processor's id: what is in primary first. */
static PyObject *
store_pairs(StoreObject *self, bool primary, bool victim)
{
    PyObject *list = PyList_New(0);
    Runner none = {NULL, 0};
    store_enter(self, none);
    PyObject *generations[] = {Py_XNewRef(primary ? (PyObject *)self->contents->primary : NULL),
                               Py_XNewRef(victim ? (PyObject *)self->contents->victim : NULL)};
    store_leave(self, none);
    for (int i = 0; i < 2; i++) {
        ShardsObject *shards = (ShardsObject *)generations[i];
        for (Py_ssize_t id = 0; list != NULL && shards != NULL && id < shards->end; id++) {
            ShardObject *shard = shards_at(shards, id);
            PyObject *pair = shard == NULL ? NULL : Py_BuildValue("(nO)", id, shard);
            if (shard != NULL && (pair == NULL || PyList_Append(list, pair) < 0)) {
                Py_CLEAR(list);
            }
            Py_XDECREF(pair);
        }
        Py_XDECREF(generations[i]);
    }
    return list;
}

static PyObject *
store_shards(StoreObject *self, PyObject *Py_UNUSED(ignored))
{
    return store_pairs(self, true, true);
}

static PyObject *
store_mapping(StoreObject *self, void *victim)
{
    PyObject *pairs = store_pairs(self, victim == NULL, victim != NULL);
    PyObject *mapping = pairs == NULL ? NULL : PyDict_New();
    if (mapping != NULL && PyDict_MergeFromSeq2(mapping, pairs, 1) < 0) {
        Py_CLEAR(mapping);
    }
    Py_XDECREF(pairs);
    return mapping;
}

static double
store_due(StoreObject *self)
{
    Runner none = {NULL, 0};
    store_enter(self, none);
    ContentsObject *contents = self->contents;
    bool any = contents->primary->end > 0 || (contents->victim != NULL && contents->victim->end > 0);
    double due = any ? contents->since + self->idle_timeout : Py_HUGE_VAL;
    store_leave(self, none);
    return due;
}

static PyObject *
store_idle_due(StoreObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyFloat_FromDouble(store_due(self));
}

static PyObject *
store_counts(StoreObject *self, PyObject *Py_UNUSED(ignored))
{
    Runner none = {NULL, 0};
    store_enter(self, none);
    PyObject *counters = Py_NewRef(self->contents->counters);
    store_leave(self, none);
    PyObject *copy = PyDict_Copy(counters);
    Py_DECREF(counters);
    return copy;
}

static PyObject *
store_cycles(StoreObject *self, PyObject *Py_UNUSED(ignored))
{
    Runner none = {NULL, 0};
    store_enter(self, none);
    long long cycles = count_read(&self->contents->cycles);
    store_leave(self, none);
    return PyLong_FromLongLong(cycles);
}

/* --- the methods, as in Python --- */

static PyObject *
store_take(StoreObject *self, PyObject *Py_UNUSED(ignored))
{
    Runner runner;
    if (!store_pin(self, &runner)) {
        return NULL;
    }
    PyObject *obj = store_take_as(self, runner);
    return obj == NULL && PyErr_Occurred() ? NULL : object_or_none(obj);
}

static PyObject *
store_take_any(StoreObject *self, PyObject *Py_UNUSED(ignored))
{
    Runner none = {NULL, 0};
    PyObject *obj = NULL;
    store_enter(self, none);
    ShardsObject *generations[] = {self->contents->primary, self->contents->victim};
    for (int i = 0; i < 2 && obj == NULL; i++) {
        for (Py_ssize_t id = 0; generations[i] != NULL && id < generations[i]->end && obj == NULL; id++) {
            ShardObject *shard = shards_at(generations[i], id);
            obj = shard == NULL ? NULL : shard_pop(shard, ring_pop_oldest);
        }
    }
    store_leave(self, none);
    return object_or_none(obj);
}

static PyObject *
store_admit(StoreObject *self, PyObject *obj)
{
    Runner runner;
    if (!store_pin(self, &runner) || !store_admit_as(self, runner, obj)) {
        return NULL;
    }
    Py_RETURN_TRUE;
}

static PyObject *
store_keep(StoreObject *self, PyObject *obj)
{
    Runner runner;
    int kept = store_pin(self, &runner) ? store_keep_as(self, runner, obj) : -1;
    return kept < 0 ? NULL : PyBool_FromLong(kept);
}

static PyObject *
store_reject(StoreObject *self, PyObject *Py_UNUSED(obj))
{
    Runner runner;
    if (!store_pin(self, &runner) || !store_reject_as(self, runner)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
store_created(StoreObject *self, PyObject *Py_UNUSED(obj))
{
    Runner runner;
    if (!store_pin(self, &runner) || !store_count(self, runner, offsetof(CountersObject, created), 1)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
store_count_asked(StoreObject *self, PyObject *arg)
{
    Runner runner;
    long long n = PyLong_AsLongLong(arg);
    if ((n == -1 && PyErr_Occurred()) || !store_pin(self, &runner)
        || !store_count(self, runner, offsetof(CountersObject, asked), n)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
store_require_loop(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_NONE;
}

/* In the child of a fork: threads that held a lock are not there to release it. */
static PyObject *
store_renew_locks(StoreObject *self, PyObject *Py_UNUSED(ignored))
{
    lock_release(&self->lock);
    ShardsObject *generations[] = {self->contents->primary, self->contents->victim};
    for (int i = 0; i < 2; i++) {
        for (Py_ssize_t id = 0; generations[i] != NULL && id < generations[i]->end; id++) {
            ShardObject *shard = shards_at(generations[i], id);
            if (shard != NULL) {
                lock_release(&shard->lock);
            }
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
store_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"slots", "max_idle", "idle_timeout", "label", NULL};
    Py_ssize_t slots;
    PyObject *max_idle, *label;
    double idle_timeout;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nOdU:Store", names, &slots, &max_idle, &idle_timeout, &label)) {
        return NULL;
    }
    Py_ssize_t bound = max_idle == Py_None ? -1 : PyNumber_AsSsize_t(max_idle, NULL); /* one too large is clipped */
    if (bound == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (slots < 0 || (max_idle != Py_None && bound < 0)) {
        PyErr_SetString(PyExc_ValueError, "slots and max_idle must not be negative");
        return NULL;
    }
    StoreObject *self = (StoreObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->slots = slots;
    self->bound = bound;
    self->idle_timeout = idle_timeout;
    self->max_idle = Py_NewRef(max_idle);
    self->label = Py_NewRef(label);
    if (!keep_module(type, &self->module, &self->state)) {
        Py_DECREF(self);
        return NULL;
    }
    self->contents = contents_make(self->state, self);
    if (self->contents == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    store_publish(self);
    return (PyObject *)self;
}

static int
store_traverse(StoreObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    Py_VISIT((PyObject *)self->contents);
    return 0;
}

/* The generations are garbage too, and empty themselves. The number goes first. */
static int
store_tp_clear(StoreObject *self)
{
    self->fast_get = self->fast_put = 0;
    return 0;
}

static void
store_dealloc(StoreObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    Py_XDECREF((PyObject *)self->contents);
    Py_XDECREF(self->max_idle);
    Py_XDECREF(self->label);
    Py_XDECREF(self->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef store_methods[] = {
    {"take", (PyCFunction)store_take, METH_NOARGS, "An idle object, or None."},
    {"take_any", (PyCFunction)store_take_any, METH_NOARGS, "An idle object of any processor, or None; not counted."},
    {"admit", (PyCFunction)store_admit, METH_O, "Whether an object may be put here: always; or it raises."},
    {"keep", (PyCFunction)store_keep, METH_O, "Put an object; False: it is over max_idle."},
    {"reject", (PyCFunction)store_reject, METH_O, "Count an object that came back and is not kept."},
    {"created", (PyCFunction)store_created, METH_O, "Count an object that was created."},
    {"count_asked", (PyCFunction)store_count_asked, METH_O, "Count bytes that were asked for."},
    {"require_loop", (PyCFunction)store_require_loop, METH_NOARGS, "Objects that are bound to no loop need none."},
    {"rotate", (PyCFunction)store_rotate, METH_NOARGS, "One cleanup cycle's part."},
    {"clear", (PyCFunction)store_clear, METH_NOARGS, "Take out all idle objects."},
    {"forget_empty", (PyCFunction)store_forget_empty, METH_NOARGS, "Where nothing is idle, retire the empty shards."},
    {"set_aside", (PyCFunction)store_set_aside, METH_NOARGS, "Be as new, until bring_back() is called."},
    {"bring_back", (PyCFunction)store_bring_back, METH_O, "Hold again what was set aside."},
    {"observe", (PyCFunction)store_observe, METH_O, "Whether every get and put must take the slow path."},
    {"renew_locks", (PyCFunction)store_renew_locks, METH_NOARGS, "In the child of a fork."},
    {"idle_due", (PyCFunction)store_idle_due, METH_NOARGS, "When idle objects call for a cycle."},
    {"shards", (PyCFunction)store_shards, METH_NOARGS, "All shards, each with its processor's id."},
    {"counts", (PyCFunction)store_counts, METH_NOARGS, "What each processor did, by id."},
    {"cycles", (PyCFunction)store_cycles, METH_NOARGS, "How many cleanup cycles the store went through."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef store_members[] = {
    {"max_idle", T_OBJECT, offsetof(StoreObject, max_idle), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(StoreObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef store_getset[] = {
    {"primary", (getter)store_mapping, NULL, "Where objects are put now, by processor id.", NULL},
    {"victim", (getter)store_mapping, NULL, "What the last cleanup cycle set aside.", "victim"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot store_slots[] = {
    {Py_tp_doc, "Idle objects that any event-loop thread may take."},
    {Py_tp_new, store_new},
    {Py_tp_dealloc, store_dealloc},
    {Py_tp_traverse, store_traverse},
    {Py_tp_clear, store_tp_clear},
    {Py_tp_methods, store_methods},
    {Py_tp_members, store_members},
    {Py_tp_getset, store_getset},
    {0, NULL},
};

static PyType_Spec store_spec = {
    "aiopool._native._extension.Store", sizeof(StoreObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, store_slots,
};
