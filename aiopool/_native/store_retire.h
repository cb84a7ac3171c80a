/* Replacing generations of shards, in cleanup cycles, in clear, and when contents are set aside; and inspecting them.

   Each function exchanges references under the store's lock and returns the shards that it removed, to be queued. */

#pragma once

#include "store.h"

/* --- retiring --- */

/* Return a list of the arguments that are not NULL. Steals the references. If there is no memory, raises an exception
   and drops them. */
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

/* Remove both generations. Returns false if there is no memory. */
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
    /* A thread that found the contents that are being replaced may still be using them. */
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
