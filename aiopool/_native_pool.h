/* The twin of _pool.py: the usual case of get and put. */

#pragma once

#include "_native_processor.h"
#include "_native_shard.h"

typedef struct {
    PyObject_HEAD
    PyObject *module;
    State *state;
    PyObject *primary;
    Number generation; /* of primary; changes with it */
    char keeps_all;
} PoolObject;

static int
pool_set_primary(PoolObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL || !PyDict_CheckExact(value)) {
        PyErr_SetString(PyExc_TypeError, "the primary shards are a dict");
        return -1;
    }
    PyObject *old;
    Py_BEGIN_CRITICAL_SECTION(self);
    old = self->primary;
    self->primary = Py_NewRef(value);
    self->generation = ++self->state->generations;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(old);
    return 0;
}

static PyObject *
pool_get_primary(PoolObject *self, void *Py_UNUSED(closure))
{
    PyObject *primary;
    Py_BEGIN_CRITICAL_SECTION(self);
    primary = Py_NewRef(self->primary);
    Py_END_CRITICAL_SECTION();
    return primary;
}

static PyObject *
pool_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PoolObject *self = (PoolObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->primary = PyDict_New();
    if (self->primary == NULL || !keep_module(type, &self->module, &self->state)) {
        Py_DECREF(self);
        return NULL;
    }
    self->generation = ++self->state->generations;
    return (PyObject *)self;
}

static int
pool_traverse(PoolObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    Py_VISIT(self->primary);
    return 0;
}

static int
pool_clear(PoolObject *self)
{
    /* Emptied, not taken away: what runs as its objects die may still call get. The number goes first, so that no
       processor remembers a shard that is gone. */
    if (self->state != NULL && self->primary != NULL) {
        self->generation = ++self->state->generations;
        PyDict_Clear(self->primary);
    }
    return 0;
}

static void
pool_dealloc(PoolObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->primary);
    Py_XDECREF(self->module);
    type->tp_free(self);
    Py_DECREF(type);
}

/* The processor's primary shard, looked up in the dict and remembered; NULL: it has none, or a cycle came between. */
static ShardObject *
look_up_shard(PoolObject *self, IdentityObject *processor)
{
    PyObject *primary, *shard;
    uint64_t generation;
    busy_end(processor);
    Py_BEGIN_CRITICAL_SECTION(self);
    primary = Py_NewRef(self->primary);
    generation = self->generation;
    Py_END_CRITICAL_SECTION();
    /* Shards are only ever added, so borrowing is safe. */
    shard = processor->id == NULL ? NULL : PyDict_GetItemWithError(primary, processor->id);
    if (shard == NULL) {
        PyErr_Clear(); /* the slow path asks again, and raises */
    }
    else if (!Py_IS_TYPE(shard, self->state->shard_type)) {
        shard = NULL;
    }
    Py_DECREF(primary);
    if (shard != NULL) {
        processor->remembered[generation % REMEMBERED] = (Remembered){generation, (ShardObject *)shard};
    }
    busy_begin(processor);
    return self->generation == generation ? (ShardObject *)shard : NULL;
}

/* The processor's primary shard, for as long as the processor is busy. */
static inline ShardObject *
own_shard(PoolObject *self, IdentityObject *processor)
{
    uint64_t generation = self->generation;
    Remembered *remembered = &processor->remembered[generation % REMEMBERED];
    return remembered->generation == generation ? remembered->shard : look_up_shard(self, processor);
}

/* private → own shared, newest first */
static inline PyObject *
take_own(PoolObject *self, IdentityObject *processor)
{
    ShardObject *shard = own_shard(self, processor);
    if (shard == NULL) {
        return NULL;
    }
    PyObject *obj = ring_pop_newest(&shard->private);
    if (obj != NULL) {
        shard->tally->private_hits++;
        return obj;
    }
    obj = shard_pop(shard, ring_pop_newest);
    if (obj != NULL) {
        shard->tally->shared++;
    }
    return obj;
}

static PyObject *
pool_get(PoolObject *self, PyObject *Py_UNUSED(ignored))
{
    IdentityObject *processor = pin(self->state);
    if (processor != NULL) {
        busy_begin(processor);
        PyObject *obj = take_own(self, processor);
        busy_end(processor);
        if (obj != NULL) {
            return obj;
        }
    }
    return PyObject_CallMethodNoArgs((PyObject *)self, self->state->get_slow);
}

/* private if it is free → own shared. False: the slow path must say why not. */
static inline bool
keep_own(PoolObject *self, IdentityObject *processor, PyObject *obj)
{
    ShardObject *shard = own_shard(self, processor);
    if (shard == NULL || ring_holds(&shard->private, obj) || !shard_keep(shard, obj)) {
        return false;
    }
    shard->tally->puts++;
    return true;
}

static PyObject *
pool_put(PoolObject *self, PyObject *obj)
{
    if (obj == Py_None) {
        Py_RETURN_NONE;
    }
    IdentityObject *processor = self->keeps_all ? pin(self->state) : NULL;
    if (processor != NULL) {
        Py_INCREF(obj);
        busy_begin(processor);
        bool kept = keep_own(self, processor, obj);
        busy_end(processor);
        if (kept) {
            Py_RETURN_NONE;
        }
        Py_DECREF(obj);
    }
    return PyObject_CallMethodOneArg((PyObject *)self, self->state->put_slow, obj);
}

static PyObject *pool_borrow(PoolObject *self, PyObject *ignored);

static PyMethodDef pool_methods[] = {
    {"get", (PyCFunction)pool_get, METH_NOARGS, "An idle object, else a new one, else `None`."},
    {"put", (PyCFunction)pool_put, METH_O, "Give an object to whoever gets next."},
    {"borrow", (PyCFunction)pool_borrow, METH_NOARGS, "Get for the time of a block."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef pool_members[] = {
    {"_keeps_all", T_BOOL, offsetof(PoolObject, keeps_all), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef pool_getset[] = {
    {"_primary", (getter)pool_get_primary, (setter)pool_set_primary, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, "What get and put look at."},

    {Py_tp_new, pool_new},
    {Py_tp_dealloc, pool_dealloc},
    {Py_tp_traverse, pool_traverse},
    {Py_tp_clear, pool_clear},
    {Py_tp_members, pool_members},
    {Py_tp_getset, pool_getset},
    {0, NULL},
};

static PyType_Spec pool_spec = {
    "aiopool._native.Base", sizeof(PoolObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, pool_slots,
};
