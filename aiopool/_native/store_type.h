/* The type Store. Each method does the same as its namesake in _core/store.py. */

#pragma once

#include "store_retire.h"

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

/* In the child of a fork: release the locks, because a thread that held one is gone. */
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
    Py_ssize_t bound = max_idle == Py_None ? -1 : PyNumber_AsSsize_t(max_idle, NULL); /* clipped if it is too large */
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

/* The generations are garbage too, and the collector clears them. Clearing the numbers keeps the fast paths off
   them. */
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
    {"take", (PyCFunction)store_take, METH_NOARGS, "Return an idle object, or None."},
    {"take_any", (PyCFunction)store_take_any, METH_NOARGS,
     "Return an idle object of any processor, or None; not counted."},
    {"admit", (PyCFunction)store_admit, METH_O, "Return True if an object may be put here; otherwise raise."},
    {"keep", (PyCFunction)store_keep, METH_O, "Put an object; return False if that would exceed max_idle."},
    {"reject", (PyCFunction)store_reject, METH_O, "Count an object that was put and is not kept."},
    {"created", (PyCFunction)store_created, METH_O, "Count an object that was created."},
    {"count_asked", (PyCFunction)store_count_asked, METH_O, "Count requested bytes."},
    {"require_loop", (PyCFunction)store_require_loop, METH_NOARGS,
     "Do nothing: objects that are bound to no loop need none."},
    {"rotate", (PyCFunction)store_rotate, METH_NOARGS, "Do this store's part of a cleanup cycle."},
    {"clear", (PyCFunction)store_clear, METH_NOARGS, "Remove all idle objects."},
    {"forget_empty", (PyCFunction)store_forget_empty, METH_NOARGS, "If nothing is idle, retire the empty shards."},
    {"set_aside", (PyCFunction)store_set_aside, METH_NOARGS, "Behave as a new store until bring_back() is called."},
    {"bring_back", (PyCFunction)store_bring_back, METH_O, "Restore what was set aside."},
    {"observe", (PyCFunction)store_observe, METH_O,
     "Turn observation on or off: while it is on, gets and puts take the slow path."},
    {"renew_locks", (PyCFunction)store_renew_locks, METH_NOARGS, "In the child of a fork: release the locks."},
    {"idle_due", (PyCFunction)store_idle_due, METH_NOARGS, "When the idle objects need a cleanup cycle."},
    {"shards", (PyCFunction)store_shards, METH_NOARGS, "All shards, each with its processor's id."},
    {"counts", (PyCFunction)store_counts, METH_NOARGS, "The counters of each processor, by id."},
    {"cycles", (PyCFunction)store_cycles, METH_NOARGS, "How many cleanup cycles the store has gone through."},
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
