/* The twin of _shard.py: the tally, and the shard with its private slot and shared list. */

#pragma once

#include "_native_state.h"

/* --- Tally --- */

typedef struct {
    PyObject_HEAD
    /* Signed: off-loop code on several threads without a GIL can miss a count, and then take one back from 0. */
    long long private_hits, shared, stolen, victim, missed, made, puts, refused;
} TallyObject;

static PyMemberDef tally_members[] = {
    {"private", T_LONGLONG, offsetof(TallyObject, private_hits), 0, NULL},
    {"shared", T_LONGLONG, offsetof(TallyObject, shared), 0, NULL},
    {"stolen", T_LONGLONG, offsetof(TallyObject, stolen), 0, NULL},
    {"victim", T_LONGLONG, offsetof(TallyObject, victim), 0, NULL},
    {"missed", T_LONGLONG, offsetof(TallyObject, missed), 0, NULL},
    {"made", T_LONGLONG, offsetof(TallyObject, made), 0, NULL},
    {"puts", T_LONGLONG, offsetof(TallyObject, puts), 0, NULL},
    {"refused", T_LONGLONG, offsetof(TallyObject, refused), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot tally_slots[] = {
    {Py_tp_doc, "What one processor did with one pool. Only its processor's thread counts here."},
    {Py_tp_dealloc, free_plain},
    {Py_tp_traverse, traverse_type},
    {Py_tp_members, tally_members},
    {0, NULL},
};

static PyType_Spec tally_spec = {
    "aiopool._native.Tally", sizeof(TallyObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, tally_slots,
};

/* --- Ring: a list with two ends --- */

typedef struct {
    PyObject **items;
    Py_ssize_t capacity; /* a power of two, or 0 */
    Py_ssize_t first;
    Py_ssize_t count;
} Ring;

static bool
ring_grow(Ring *ring)
{
    Py_ssize_t capacity = ring->capacity ? ring->capacity * 2 : 4;
    PyObject **items = PyMem_Malloc((size_t)capacity * sizeof(PyObject *));
    if (items == NULL) {
        return false;
    }
    for (Py_ssize_t i = 0; i < ring->count; i++) {
        items[i] = ring->items[(ring->first + i) & (ring->capacity - 1)];
    }
    PyMem_Free(ring->items);
    ring->items = items;
    ring->capacity = capacity;
    ring->first = 0;
    return true;
}

/* Takes over the reference. False: no memory, and the reference stays the caller's. */
static inline bool
ring_push(Ring *ring, PyObject *obj)
{
    if (ring->count == ring->capacity && !ring_grow(ring)) {
        return false;
    }
    ring->items[(ring->first + ring->count++) & (ring->capacity - 1)] = obj;
    return true;
}

static inline PyObject *
ring_pop_newest(Ring *ring)
{
    if (ring->count == 0) {
        return NULL;
    }
    return ring->items[(ring->first + --ring->count) & (ring->capacity - 1)];
}

static inline PyObject *
ring_pop_oldest(Ring *ring)
{
    if (ring->count == 0) {
        return NULL;
    }
    PyObject *obj = ring->items[ring->first];
    ring->first = (ring->first + 1) & (ring->capacity - 1);
    ring->count--;
    return obj;
}

static bool
ring_holds(const Ring *ring, PyObject *obj)
{
    for (Py_ssize_t i = 0; i < ring->count; i++) {
        if (ring->items[(ring->first + i) & (ring->capacity - 1)] == obj) {
            return true;
        }
    }
    return false;
}

static PyObject *
ring_list(const Ring *ring)
{
    PyObject *list = PyList_New(0); /* may collect: finalizers that use the ring run before we look at it */
    for (Py_ssize_t i = 0; list != NULL && i < ring->count; i++) {
        if (PyList_Append(list, ring->items[(ring->first + i) & (ring->capacity - 1)]) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static int
ring_traverse(const Ring *ring, visitproc visit, void *arg)
{
    for (Py_ssize_t i = 0; i < ring->count; i++) {
        Py_VISIT(ring->items[(ring->first + i) & (ring->capacity - 1)]);
    }
    return 0;
}

/* One at a time, each out of the ring before it dies: its finalizer may look in here. */
static void
ring_clear(Ring *ring)
{
    PyObject *obj;
    while ((obj = ring_pop_newest(ring)) != NULL) {
        Py_DECREF(obj);
    }
    PyMem_Free(ring->items);
    *ring = (Ring){0};
}

/* --- Shard --- */

struct ShardObject {
    PyObject_HEAD
    Ring private;
    Ring shared;
    Flag lock;
    Py_ssize_t slots; /* how many objects stay private while the lock can be had */
    TallyObject *tally;
};

static PyObject *
shard_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"tally", "slots", NULL};
    State *state = state_of(type);
    PyObject *tally;
    Py_ssize_t slots = 1;
    if (state == NULL
        || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!|n:Shard", names, state->tally_type, &tally, &slots)) {
        return NULL;
    }
    ShardObject *self = (ShardObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->slots = slots;
    self->tally = (TallyObject *)Py_NewRef(tally);
    if (!ring_grow(&self->private)) { /* so that the private slot never needs memory */
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static int
shard_traverse(ShardObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->tally);
    int stop = ring_traverse(&self->private, visit, arg);
    return stop ? stop : ring_traverse(&self->shared, visit, arg);
}

static int
shard_clear(ShardObject *self)
{
    ring_clear(&self->private);
    ring_clear(&self->shared);
    return 0;
}

static void
shard_dealloc(ShardObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    shard_clear(self);
    Py_XDECREF(self->tally);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Off-loop code has no private space of its own. It spins here for the few instructions that the holder needs. */
static void
shard_lock(ShardObject *self)
{
    while (!lock_try(&self->lock)) {
    }
}

static Py_ssize_t
shard_length(ShardObject *self)
{
    shard_lock(self);
    Py_ssize_t length = self->private.count + self->shared.count;
    lock_release(&self->lock);
    return length;
}

/* Puts obj in the private slot or the shared list. Takes over the reference. False: no memory. */
static bool
shard_keep(ShardObject *self, PyObject *obj)
{
    if (self->private.count < self->slots) {
        return ring_push(&self->private, obj);
    }
    if (self->slots == 0) {
        shard_lock(self);
    }
    else if (!lock_try(&self->lock)) {
        return ring_push(&self->private, obj);
    }
    bool kept = ring_push(&self->shared, obj);
    while (kept && self->private.count > self->slots) {
        PyObject *spare = ring_pop_newest(&self->private);
        if (!ring_push(&self->shared, spare)) {
            ring_push(&self->private, spare); /* there is room where it was */
            break;
        }
    }
    lock_release(&self->lock);
    return kept;
}

static PyObject *
shard_put(ShardObject *self, PyObject *obj)
{
    if (!shard_keep(self, Py_NewRef(obj))) {
        Py_DECREF(obj);
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

static inline PyObject *
shard_pop(ShardObject *self, PyObject *(*pop)(Ring *))
{
    if (!lock_try(&self->lock)) {
        return NULL;
    }
    PyObject *obj = pop(&self->shared);
    lock_release(&self->lock);
    return obj;
}

static inline PyObject *
object_or_none(PyObject *obj)
{
    return obj == NULL ? Py_NewRef(Py_None) : obj;
}

static PyObject *
shard_take_private(ShardObject *self, PyObject *Py_UNUSED(ignored))
{
    return object_or_none(ring_pop_newest(&self->private));
}

static PyObject *
shard_take_newest(ShardObject *self, PyObject *Py_UNUSED(ignored))
{
    return object_or_none(shard_pop(self, ring_pop_newest));
}

static PyObject *
shard_take_oldest(ShardObject *self, PyObject *Py_UNUSED(ignored))
{
    return object_or_none(shard_pop(self, ring_pop_oldest));
}

static PyObject *
shard_drop_newest(ShardObject *self, PyObject *Py_UNUSED(ignored))
{
    shard_lock(self);
    PyObject *obj = ring_pop_newest(&self->shared);
    lock_release(&self->lock);
    if (obj == NULL) {
        Py_RETURN_FALSE;
    }
    Py_DECREF(obj);
    Py_RETURN_TRUE;
}

static PyObject *
shard_holds_private(ShardObject *self, PyObject *obj)
{
    return PyBool_FromLong(ring_holds(&self->private, obj));
}

static PyObject *
shard_renew_lock(ShardObject *self, PyObject *Py_UNUSED(ignored))
{
    lock_release(&self->lock);
    Py_RETURN_NONE;
}

static PyObject *
shard_get_private(ShardObject *self, void *Py_UNUSED(closure))
{
    return ring_list(&self->private);
}

static PyObject *
shard_get_shared(ShardObject *self, void *Py_UNUSED(closure))
{
    shard_lock(self);
    PyObject *list = ring_list(&self->shared);
    lock_release(&self->lock);
    return list;
}

static PyMethodDef shard_methods[] = {
    {"put", (PyCFunction)shard_put, METH_O, "Keep an object. Owner only."},
    {"take_private", (PyCFunction)shard_take_private, METH_NOARGS, "The private object, or None. Owner only."},
    {"take_newest", (PyCFunction)shard_take_newest, METH_NOARGS, "The object put last to the shared list, or None."},
    {"take_oldest", (PyCFunction)shard_take_oldest, METH_NOARGS, "The object put first to the shared list, or None."},
    {"drop_newest", (PyCFunction)shard_drop_newest, METH_NOARGS, "Let go of one shared object; False: none."},
    {"holds_private", (PyCFunction)shard_holds_private, METH_O, "Whether the object lies in private space."},
    {"renew_lock", (PyCFunction)shard_renew_lock, METH_NOARGS, "In the child of a fork."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef shard_members[] = {
    {"tally", T_OBJECT_EX, offsetof(ShardObject, tally), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef shard_getset[] = {
    {"private", (getter)shard_get_private, NULL, "A list of the private objects, of a shard at rest.", NULL},
    {"shared", (getter)shard_get_shared, NULL, "A list of the shared objects.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot shard_slots[] = {
    {Py_tp_doc, "Objects that one processor put."},
    {Py_tp_new, shard_new},
    {Py_tp_dealloc, shard_dealloc},
    {Py_tp_traverse, shard_traverse},
    {Py_tp_clear, shard_clear},
    {Py_tp_methods, shard_methods},
    {Py_tp_members, shard_members},
    {Py_tp_getset, shard_getset},
    {Py_sq_length, shard_length},
    {0, NULL},
};

static PyType_Spec shard_spec = {
    "aiopool._native.Shard", sizeof(ShardObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, shard_slots,
};
