/* The C version of _core/loop_bound_store.py: the usual case of a get and a put on a loop-bound pool.

   A processor remembers its loop's shard of such a store by the number of the generation, as it does for other stores.
   Here the pin must also verify the loop. An object stays bound to its loop as long as it lives, so a get need not bind
   it; a put must check that it is bound to this loop. Objects that do not support weak references are bound again at
   each get, and their binding ends at the put. */

#pragma once

#include "store_type.h"

typedef struct {
    PyObject_HEAD
    PyObject *module;
    State *state;
    PyObject *entries; /* the dict of bindings: id → (weak reference or None, mark) */
    Number fast_get;   /* as in a Store */
    Number fast_put;
} BoundStoreObject;

static ShardObject *
bound_shard(IdentityObject *processor, uint64_t generation)
{
    Remembered *remembered = &processor->remembered[generation % REMEMBERED];
    return generation != 0 && remembered->generation == generation ? remembered->shard : NULL;
}

/* Bind an object that does not support weak references. Returns false if there is no memory. */
static bool
bind_while_checked_out(BoundStoreObject *self, IdentityObject *processor, PyObject *obj)
{
    PyObject *key = PyLong_FromVoidPtr(obj);
    PyObject *entry = key == NULL ? NULL : PyTuple_Pack(2, Py_None, processor->mark);
    bool bound = entry != NULL && PyDict_SetItem(self->entries, key, entry) == 0;
    Py_XDECREF(entry);
    Py_XDECREF(key);
    return bound;
}

/* private slot → own shared list, of the running loop. Returns NULL without an exception if the slow path must get. */
static PyObject *
bound_take(BoundStoreObject *self, IdentityObject *processor)
{
    if (!is_on_its_loop(self->state, processor)) {
        return NULL;
    }
    busy_begin(processor);
    ShardObject *shard = bound_shard(processor, self->fast_get);
    PyObject *obj = shard == NULL ? NULL : ring_pop_newest(&shard->private);
    if (obj != NULL) {
        count_add(&shard->counters->private_hits, 1);
    }
    else if (shard != NULL && (obj = shard_pop(shard, ring_pop_newest)) != NULL) {
        count_add(&shard->counters->shared, 1);
    }
    busy_end(processor);
    if (obj != NULL && !PyType_SUPPORTS_WEAKREFS(Py_TYPE(obj)) && !bind_while_checked_out(self, processor, obj)) {
        Py_CLEAR(obj);
    }
    return obj;
}

/* Whether obj is bound to the loop that the processor runs. If the binding must end with the put, sets ends to its
   key. */
static bool
is_bound_here(BoundStoreObject *self, IdentityObject *processor, PyObject *obj, PyObject **ends)
{
    PyObject *key = PyLong_FromVoidPtr(obj);
    PyObject *entry = key == NULL ? NULL : dict_get(self->entries, key);
    bool here = entry != NULL && PyTuple_CheckExact(entry) && PyTuple_GET_SIZE(entry) == 2
                && PyTuple_GET_ITEM(entry, 1) == processor->mark;
    if (here && PyTuple_GET_ITEM(entry, 0) == Py_None) {
        *ends = Py_NewRef(key);
    }
    else if (here) {
        here = refers_to(PyTuple_GET_ITEM(entry, 0), obj);
    }
    Py_XDECREF(entry);
    Py_XDECREF(key);
    PyErr_Clear(); /* Python tries again, and raises */
    return here;
}

/* Put obj. Returns false if the slow path must do it. */
static bool
bound_keep(BoundStoreObject *self, IdentityObject *processor, PyObject *obj)
{
    PyObject *ends = NULL;
    if (self->fast_put == 0 || !is_on_its_loop(self->state, processor) || !is_bound_here(self, processor, obj, &ends)
        || (ends != NULL && PyDict_DelItem(self->entries, ends) < 0)) {
        Py_XDECREF(ends);
        PyErr_Clear(); /* Python does the same, and raises */
        return false;
    }
    bool kept = false;
    Py_INCREF(obj);
    busy_begin(processor);
    ShardObject *shard = bound_shard(processor, self->fast_put);
    if (shard != NULL && !ring_holds(&shard->private, obj) && shard_keep(shard, obj)) {
        count_add(&shard->counters->puts, 1);
        kept = true;
    }
    busy_end(processor);
    if (!kept) {
        Py_DECREF(obj);
        if (ends != NULL && !bind_while_checked_out(self, processor, obj)) {
            PyErr_Clear(); /* harmless: an object without a binding is assumed to be created on this loop */
        }
    }
    Py_XDECREF(ends);
    return kept;
}

static PyObject *
bound_store_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    BoundStoreObject *self = (BoundStoreObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->entries = PyDict_New();
    if (self->entries == NULL || !keep_module(type, &self->module, &self->state)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
bound_store_traverse(BoundStoreObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    Py_VISIT(self->entries);
    return 0;
}

static void
bound_store_dealloc(BoundStoreObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->entries);
    Py_XDECREF(self->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
bound_store_publish(BoundStoreObject *self, PyObject *args)
{
    int gets, puts;
    if (!PyArg_ParseTuple(args, "pp:publish", &gets, &puts)) {
        return NULL;
    }
    /* In one step: if two threads publish at once, the newer number must stay. */
    Py_BEGIN_CRITICAL_SECTION(self);
    uint64_t number = ++self->state->generations;
    self->fast_get = gets ? number : 0;
    self->fast_put = puts ? number : 0;
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static PyObject *
bound_store_remember(BoundStoreObject *self, PyObject *args)
{
    PyObject *processor, *shard, *mark;
    unsigned long long published;
    if (!PyArg_ParseTuple(args, "KO!O!O:remember", &published, self->state->identity_type, &processor,
                          self->state->shard_type, &shard, &mark)) {
        return NULL;
    }
    IdentityObject *identity = (IdentityObject *)processor;
    /* If the numbers are equal, the shard is not retired yet: removing it publishes a new number. The processor must
       also be on the shard's loop; it may not be, if its thread runs two loops in turn in one context. */
    if (published != 0 && published == self->fast_get && pin(self->state) == identity
        && is_on_its_loop(self->state, identity)) {
        identity->remembered[published % REMEMBERED] =
            (Remembered){published, (ShardObject *)shard, ((ShardObject *)shard)->counters};
        Py_XSETREF(identity->mark, Py_NewRef(mark));
    }
    Py_RETURN_NONE;
}

static PyMethodDef bound_store_methods[] = {
    {"publish", (PyCFunction)bound_store_publish, METH_VARARGS,
     "Forget the last generation's shards, and say whether gets and puts may take the fast path."},
    {"remember", (PyCFunction)bound_store_remember, METH_VARARGS, "Let the loop that a processor runs find its shard."},
    {NULL, NULL, 0, NULL},
};

static PyObject *
bound_store_get_published(BoundStoreObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->fast_get);
}

static PyGetSetDef bound_store_getset[] = {
    {"published", (getter)bound_store_get_published, NULL, "The number of the published generation.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef bound_store_members[] = {
    {"entries", T_OBJECT, offsetof(BoundStoreObject, entries), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot bound_store_slots[] = {
    {Py_tp_doc, "The data of a loop-bound store that get and put use."},
    {Py_tp_new, bound_store_new},
    {Py_tp_dealloc, bound_store_dealloc},
    {Py_tp_traverse, bound_store_traverse},
    {Py_tp_methods, bound_store_methods},
    {Py_tp_members, bound_store_members},
    {Py_tp_getset, bound_store_getset},
    {0, NULL},
};

static PyType_Spec bound_store_spec = {
    "aiopool._native._extension.LoopBoundStoreBase", sizeof(BoundStoreObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, bound_store_slots,
};
