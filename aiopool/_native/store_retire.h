/* Replacing generations of shards, in cleanup cycles, in clear, and when contents are set aside; and inspecting them.

   Each function exchanges references under the store's lock, waits until no thread uses what it removed
   (wait_for_busy), and returns that, to be queued. A store without shards stays as it is: most size classes of a buffer
   pool are never used, and replacing their generations would cost more than all others together. */

#pragma once

#include "store.h"

/* --- retiring --- */

/* An empty list with room for the shards that are about to be removed. It is created before they are removed, because
   without memory for it they could only be dropped, and another thread may still be using them. */
static PyObject *
make_retired_list(void)
{
    PyObject *list = PyList_New(2);
    if (list != NULL) {
        Py_SET_SIZE(list, 0);
    }
    return list;
}

/* Fill such a list with the arguments that are not NULL, and return it when no thread can be using them any more: code
   that gets the list may be interrupted anywhere, and drop it. Steals all references. */
static PyObject *
finish_retired_list(State *state, PyObject *list, ShardsObject *first, ShardsObject *second)
{
    Py_ssize_t count = 0;
    ShardsObject *retired[] = {first, second};
    for (int i = 0; i < 2; i++) {
        if (retired[i] != NULL) {
            PyList_SET_ITEM(list, count++, (PyObject *)retired[i]);
        }
    }
    Py_SET_SIZE(list, count);
    if (count > 0) {
        wait_for_busy(state);
    }
    return list;
}

static PyObject *
store_rotate(StoreObject *self, PyObject *Py_UNUSED(ignored))
{
    Runner none = {NULL, 0};
    PyObject *list = make_retired_list();
    ShardsObject *fresh = list == NULL ? NULL : shards_make(self->state);
    if (fresh == NULL) {
        Py_XDECREF(list);
        return NULL;
    }
    double now = monotonic();
    ShardsObject *retired = NULL;
    store_enter(self, none);
    ContentsObject *contents = self->contents;
    count_add(&contents->cycles, 1);
    if (contents_have_shards(contents)) {
        retired = contents->victim;
        contents->victim = contents->primary;
        contents->primary = fresh;
        contents->since = now;
        fresh = NULL;
        store_publish(self);
    }
    store_leave(self, none);
    Py_XDECREF(fresh);
    return finish_retired_list(self->state, list, retired, NULL);
}

/* Remove both generations, unless there are no shards: retired is then {NULL, NULL}. Returns false if there is no
   memory. */
static bool
store_take_out(StoreObject *self, ShardsObject *retired[2])
{
    Runner none = {NULL, 0};
    ShardsObject *fresh = shards_make(self->state);
    if (fresh == NULL) {
        return false;
    }
    retired[0] = retired[1] = NULL;
    store_enter(self, none);
    ContentsObject *contents = self->contents;
    if (contents_have_shards(contents)) {
        retired[0] = contents->primary;
        retired[1] = contents->victim;
        contents->primary = fresh;
        contents->victim = NULL;
        fresh = NULL;
        store_publish(self);
    }
    store_leave(self, none);
    Py_XDECREF(fresh);
    return true;
}

static PyObject *
store_clear(StoreObject *self, PyObject *Py_UNUSED(ignored))
{
    ShardsObject *retired[2];
    PyObject *list = make_retired_list();
    if (list == NULL || !store_take_out(self, retired)) {
        Py_XDECREF(list);
        return NULL;
    }
    return finish_retired_list(self->state, list, retired[0], retired[1]);
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
    if (fresh == NULL) {
        return NULL;
    }
    ContentsObject *kept = store_exchange_contents(self, fresh);
    wait_for_busy(self->state);
    return (PyObject *)kept;
}

static PyObject *
store_bring_back(StoreObject *self, PyObject *kept)
{
    if (!Py_IS_TYPE(kept, self->state->contents_type) || ((ContentsObject *)kept)->owner != self) {
        return PyErr_Format(PyExc_TypeError, "bring_back() takes what set_aside() returned, not %.80R", kept);
    }
    PyObject *list = store_clear(self, NULL);
    if (list == NULL) {
        return NULL;
    }
    ContentsObject *passing = store_exchange_contents(self, (ContentsObject *)Py_NewRef(kept));
    wait_for_busy(self->state);
    Py_DECREF(passing);
    return list;
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

/* --- inspecting --- */

/* All shards of the requested generations, each with its processor's id; the primary ones first. */
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
    double due = contents_have_shards(contents) ? contents->since + self->idle_timeout : Py_HUGE_VAL;
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
