/* The C version of get and put in _pool.py. */

#pragma once

#include "bound_store.h"

typedef struct {
    PyObject_HEAD
    PyObject *module;
    State *state;
    PyObject *store;         /* set once, in __init__ */
    StoreObject *plain;      /* the same, if it is a Store; otherwise NULL */
    BoundStoreObject *bound; /* the same, if it is a LoopBoundStore; otherwise NULL */
    PyObject *create;        /* new, or None */
    PyObject *reset;         /* or None */
} PoolObject;

static PyObject *
pool_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PoolObject *self = (PoolObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->store = Py_NewRef(Py_None);
    self->create = Py_NewRef(Py_None);
    self->reset = Py_NewRef(Py_None);
    if (!keep_module(type, &self->module, &self->state)) {
        Py_DECREF(self);
        return NULL;
    }
    defer_reference_counting((PyObject *)self);
    return (PyObject *)self;
}

static int
pool_traverse(PoolObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    Py_VISIT(self->store);
    Py_VISIT(self->create);
    Py_VISIT(self->reset);
    return 0;
}

/* The store stays, because finalizers of its objects may still call get. */
static int
pool_clear(PoolObject *self)
{
    Py_XSETREF(self->create, Py_NewRef(Py_None));
    Py_XSETREF(self->reset, Py_NewRef(Py_None));
    return 0;
}

static void
pool_dealloc(PoolObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->store);
    Py_XDECREF(self->create);
    Py_XDECREF(self->reset);
    Py_XDECREF(self->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
pool_get_store(PoolObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->store);
}

static int
pool_set_store(PoolObject *self, PyObject *store, void *Py_UNUSED(closure))
{
    if (store == NULL || self->store != Py_None) {
        PyErr_SetString(PyExc_TypeError, "the store of a pool can be set only once");
        return -1;
    }
    self->plain = Py_IS_TYPE(store, self->state->store_type) ? (StoreObject *)store : NULL;
    self->bound = PyObject_TypeCheck(store, self->state->bound_store_type) ? (BoundStoreObject *)store : NULL;
    Py_SETREF(self->store, Py_NewRef(store));
    return 0;
}

/* Create an object, because nothing is idle. */
static PyObject *
pool_create(PoolObject *self, Runner runner)
{
    if (self->create == Py_None) {
        Py_RETURN_NONE;
    }
    PyObject *obj = PyObject_CallNoArgs(self->create);
    if (obj != NULL && !store_count(self->plain, runner, offsetof(CountersObject, created), 1)) {
        Py_CLEAR(obj);
    }
    return obj;
}

static PyObject *
pool_get_slow(PoolObject *self)
{
    StoreObject *store = self->plain;
    Runner runner;
    if (store != NULL && !store_pin(store, &runner)) {
        return NULL;
    }
    if (store == NULL || store->observed) { /* checked after the pin, whose Python code may set an observer */
        return PyObject_CallMethodNoArgs((PyObject *)self, self->state->get_slow);
    }
    PyObject *obj = store_take_as(store, runner);
    return obj != NULL || PyErr_Occurred() ? obj : pool_create(self, runner);
}

static PyObject *
pool_get(PoolObject *self, PyObject *Py_UNUSED(ignored))
{
    IdentityObject *processor = pin(self->state);
    PyObject *obj = NULL;
    if (processor != NULL && self->plain != NULL) {
        CountersObject *counters;
        busy_begin(processor);
        obj = take_own(self->plain, processor, &counters);
        busy_end(processor);
    }
    else if (processor != NULL && self->bound != NULL) {
        obj = bound_take(self->bound, processor);
        if (obj == NULL && PyErr_Occurred()) {
            return NULL;
        }
    }
    return obj != NULL ? obj : pool_get_slow(self);
}

/* Call reset. Returns 1 if obj may be kept, 0 if not, and -1 if reset raised. */
static int
pool_reset(PoolObject *self, PyObject *obj)
{
    PyObject *result = PyObject_CallOneArg(self->reset, obj);
    if (result == NULL || result == Py_None || result == Py_True || result == Py_False) {
        int accepted = result == NULL ? -1 : result != Py_False;
        Py_XDECREF(result);
        return accepted;
    }
    /* Any other result is accepted, except an awaitable, which is an error. */
    PyObject *accepts = PyObject_CallMethodObjArgs((PyObject *)self, self->state->accepts, result, obj, NULL);
    int accepted = accepts == NULL ? -1 : PyObject_IsTrue(accepts);
    Py_XDECREF(accepts);
    Py_DECREF(result);
    return accepted;
}

/* Like pool_reset, but count obj as rejected unless it may be kept. */
static int
pool_reset_or_reject(PoolObject *self, Runner runner, PyObject *obj)
{
    int accepted = pool_reset(self, obj);
    if (accepted == 1) {
        return 1;
    }
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    bool counted = store_reject_as(self->plain, runner);
    if (type != NULL) {
        PyErr_Clear();
        PyErr_Restore(type, error, traceback);
        return -1;
    }
    return counted ? 0 : -1;
}

static PyObject *
pool_put_slow(PoolObject *self, PyObject *obj)
{
    StoreObject *store = self->plain;
    Runner runner;
    if (store != NULL && !store_pin(store, &runner)) {
        return NULL;
    }
    if (store == NULL || store->observed) {
        return PyObject_CallMethodOneArg((PyObject *)self, self->state->put_slow, obj);
    }
    if (!store_admit_as(store, runner, obj)) {
        return NULL;
    }
    if (self->reset != Py_None) {
        int accepted = pool_reset_or_reject(self, runner, obj);
        /* Pin again, because reset runs Python code, which may have set an observer or run a loop. */
        if (accepted < 0 || (accepted == 1 && !store_pin(store, &runner))) {
            return NULL;
        }
        if (accepted == 0) {
            Py_RETURN_NONE;
        }
    }
    if (store_keep_as(store, runner, obj) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
pool_put(PoolObject *self, PyObject *obj)
{
    if (obj == Py_None) {
        Py_RETURN_NONE;
    }
    IdentityObject *processor = self->reset == Py_None ? pin(self->state) : NULL;
    if (processor != NULL && self->plain != NULL) {
        Py_INCREF(obj);
        busy_begin(processor);
        bool kept = keep_own(self->plain, processor, obj);
        busy_end(processor);
        if (kept) {
            Py_RETURN_NONE;
        }
        Py_DECREF(obj);
    }
    else if (processor != NULL && self->bound != NULL && bound_keep(self->bound, processor, obj)) {
        Py_RETURN_NONE;
    }
    return pool_put_slow(self, obj);
}

static PyObject *pool_borrow(PoolObject *self, PyObject *ignored);

/* Without docstrings, because each gets the signature and the docstring of the Python method that it replaces. */
static PyMethodDef pool_methods[] = {
    {"get", (PyCFunction)pool_get, METH_NOARGS, NULL},
    {"put", (PyCFunction)pool_put, METH_O, NULL},
    {"borrow", (PyCFunction)pool_borrow, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *
pool_get_callable(PyObject *self, void *offset)
{
    return Py_NewRef(*(PyObject **)((char *)self + (uintptr_t)offset));
}

static int
pool_set_callable(PyObject *self, PyObject *value, void *offset)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "a pool's `new` and `reset` cannot be deleted");
        return -1;
    }
    Py_SETREF(*(PyObject **)((char *)self + (uintptr_t)offset), Py_NewRef(value));
    return 0;
}

static PyGetSetDef pool_getset[] = {
    {"_new", pool_get_callable, pool_set_callable, NULL, (void *)offsetof(PoolObject, create)},
    {"_reset", pool_get_callable, pool_set_callable, NULL, (void *)offsetof(PoolObject, reset)},
    {"_store", (getter)pool_get_store, (setter)pool_set_store, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, "The data that get and put use."},
    {Py_tp_new, pool_new},
    {Py_tp_dealloc, pool_dealloc},
    {Py_tp_traverse, pool_traverse},
    {Py_tp_clear, pool_clear},
    {Py_tp_getset, pool_getset},
    {0, NULL},
};

static PyType_Spec pool_spec = {
    "aiopool._native._extension.PoolBase", sizeof(PoolObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, pool_slots,
};
