/* The C version of _core/shard.py: the counters, and the shard with its private slot and shared list. */

#pragma once

#include "state.h"

/* --- Counters --- */

typedef struct CountersObject {
    PyObject_HEAD
    Count private_hits, shared, stolen, victim, misses, created, puts, rejected, over_max_idle, asked;
    PADDING
} CountersObject;

static Count *
counter_at(PyObject *self, void *offset)
{
    return (Count *)((char *)self + (uintptr_t)offset);
}

static PyObject *
counters_get(PyObject *self, void *offset)
{
    return PyLong_FromLongLong(count_read(counter_at(self, offset)));
}

static int
counters_set(PyObject *self, PyObject *value, void *offset)
{
    long long number = value == NULL ? -1 : PyLong_AsLongLong(value);
    if (value == NULL || (number == -1 && PyErr_Occurred())) {
        if (value == NULL) {
            PyErr_SetString(PyExc_TypeError, "a counter cannot be deleted");
        }
        return -1;
    }
    count_write(counter_at(self, offset), number);
    return 0;
}

#define COUNTER(name, field) {name, counters_get, counters_set, NULL, (void *)offsetof(CountersObject, field)}

static PyGetSetDef counters_getset[] = {
    COUNTER("private", private_hits),
    COUNTER("shared", shared),
    COUNTER("stolen", stolen),
    COUNTER("victim", victim),
    COUNTER("misses", misses),
    COUNTER("created", created),
    COUNTER("puts", puts),
    COUNTER("rejected", rejected),
    COUNTER("over_max_idle", over_max_idle),
    COUNTER("asked", asked),
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot counters_slots[] = {
    {Py_tp_doc, "Counts of what one processor did with one pool. Only its own thread writes them."},
    {Py_tp_dealloc, free_plain},
    {Py_tp_traverse, traverse_type},
    {Py_tp_getset, counters_getset},
    {0, NULL},
};

static PyType_Spec counters_spec = {
    "aiopool._native._extension.Counters", sizeof(CountersObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    counters_slots,
};

/* --- Ring: a double-ended queue --- */

typedef struct {
    PyObject **items;
    Py_ssize_t capacity; /* a power of two, or 0 */
    Py_ssize_t first;
    Count count; /* also read by other threads, to see whether the ring is empty */
} Ring;

static bool
ring_grow(Ring *ring)
{
    Py_ssize_t capacity = ring->capacity ? ring->capacity * 2 : 4;
    PyObject **items = PyMem_Malloc((size_t)capacity * sizeof(PyObject *));
    if (items == NULL) {
        return false;
    }
    Py_ssize_t count = (Py_ssize_t)count_read(&ring->count);
    for (Py_ssize_t i = 0; i < count; i++) {
        items[i] = ring->items[(ring->first + i) & (ring->capacity - 1)];
    }
    PyMem_Free(ring->items);
    ring->items = items;
    ring->capacity = capacity;
    ring->first = 0;
    return true;
}

/* Steals the reference, unless it returns false because there is no memory. */
static inline bool
ring_push(Ring *ring, PyObject *obj)
{
    Py_ssize_t count = (Py_ssize_t)count_read(&ring->count);
    if (count == ring->capacity && !ring_grow(ring)) {
        return false;
    }
    ring->items[(ring->first + count) & (ring->capacity - 1)] = obj;
    count_write(&ring->count, count + 1);
    return true;
}

static inline PyObject *
ring_pop_newest(Ring *ring)
{
    Py_ssize_t count = (Py_ssize_t)count_read(&ring->count);
    if (count == 0) {
        return NULL;
    }
    count_write(&ring->count, count - 1);
    return ring->items[(ring->first + count - 1) & (ring->capacity - 1)];
}

static inline PyObject *
ring_pop_oldest(Ring *ring)
{
    Py_ssize_t count = (Py_ssize_t)count_read(&ring->count);
    if (count == 0) {
        return NULL;
    }
    PyObject *obj = ring->items[ring->first];
    ring->first = (ring->first + 1) & (ring->capacity - 1);
    count_write(&ring->count, count - 1);
    return obj;
}

static bool
ring_holds(Ring *ring, PyObject *obj)
{
    for (Py_ssize_t i = 0; i < (Py_ssize_t)count_read(&ring->count); i++) {
        if (ring->items[(ring->first + i) & (ring->capacity - 1)] == obj) {
            return true;
        }
    }
    return false;
}

static PyObject *
ring_list(Ring *ring)
{
    PyObject *list = PyList_New(0); /* may run finalizers that use the ring, but only before we read it */
    for (Py_ssize_t i = 0; list != NULL && i < (Py_ssize_t)count_read(&ring->count); i++) {
        if (PyList_Append(list, ring->items[(ring->first + i) & (ring->capacity - 1)]) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static int
ring_traverse(Ring *ring, visitproc visit, void *arg)
{
    for (Py_ssize_t i = 0; i < (Py_ssize_t)count_read(&ring->count); i++) {
        Py_VISIT(ring->items[(ring->first + i) & (ring->capacity - 1)]);
    }
    return 0;
}

/* One object at a time, each removed before it is freed, because its finalizer may use the ring. */
static void
ring_clear(Ring *ring)
{
    PyObject *obj;
    while ((obj = ring_pop_newest(ring)) != NULL) {
        Py_DECREF(obj);
    }
    PyMem_Free(ring->items);
    ring->items = NULL;
    ring->capacity = ring->first = 0; /* the count is 0 already; a thread that collects statistics may be reading it */
}

/* --- Shard --- */

struct ShardObject {
    PyObject_HEAD
    Ring private;
    Ring shared;
    Flag lock;
    Py_ssize_t slots; /* how many objects stay private: see _core/shard.py */
    CountersObject *counters;
    PADDING
};

/* Borrows the reference to the counters, and takes its own. */
static ShardObject *
shard_make(State *state, CountersObject *counters, Py_ssize_t slots)
{
    ShardObject *self = (ShardObject *)state->shard_type->tp_alloc(state->shard_type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->slots = slots;
    self->counters = (CountersObject *)Py_NewRef(counters);
    if (!ring_grow(&self->private)) { /* so that the private slot never needs memory */
        Py_DECREF(self);
        PyErr_NoMemory();
        return NULL;
    }
    return self;
}

static PyObject *
shard_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"counters", "slots", NULL};
    State *state = state_of(type);
    PyObject *counters;
    Py_ssize_t slots = 1;
    if (state == NULL
        || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!|n:Shard", names, state->counters_type, &counters, &slots)) {
        return NULL;
    }
    if (slots < 0) {
        return PyErr_Format(PyExc_ValueError, "slots must not be negative, but is %zd", slots);
    }
    return (PyObject *)shard_make(state, (CountersObject *)counters, slots);
}

static int
shard_traverse(ShardObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->counters);
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
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, shard_dealloc) /* its objects may refer to shards, and so on */
    PyTypeObject *type = Py_TYPE(self);
    shard_clear(self);
    Py_XDECREF(self->counters);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static Py_ssize_t
shard_length(ShardObject *self)
{
    return (Py_ssize_t)(count_read(&self->private.count) + count_read(&self->shared.count));
}

/* Put obj in the private slot or the shared list. Steals the reference, unless it returns false because there is no
   memory. */
static bool
shard_keep(ShardObject *self, PyObject *obj)
{
    Py_ssize_t private = (Py_ssize_t)count_read(&self->private.count);
    if (private < self->slots) {
        return ring_push(&self->private, obj);
    }
    if (self->slots == 0) { /* there is no private slot, so wait for the few instructions that the holder needs */
        lock_wait(&self->lock);
    }
    else if (!lock_try(&self->lock)) {
        return ring_push(&self->private, obj);
    }
    bool kept = ring_push(&self->shared, obj);
    for (; kept && private > self->slots; private--) {
        PyObject *spare = ring_pop_newest(&self->private);
        if (!ring_push(&self->shared, spare)) {
            ring_push(&self->private, spare); /* cannot fail, because its place is still free */
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

/* Pop an object from the shared list; NULL if it is empty or locked by another thread. */
static inline PyObject *
shard_pop(ShardObject *self, PyObject *(*pop)(Ring *))
{
    /* The count is checked before the lock is written, because many processors try to steal here and find nothing. */
    if (count_read(&self->shared.count) == 0 || !lock_try(&self->lock)) {
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

/* Free the newest shared object: see _core/shard.py. Returns false if there was none. */
static bool
shard_free_one(ShardObject *self)
{
    lock_wait(&self->lock);
    PyObject *obj = ring_pop_newest(&self->shared);
    lock_release(&self->lock);
    Py_XDECREF(obj);
    return obj != NULL;
}

static PyObject *
shard_free_newest(ShardObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(shard_free_one(self));
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
    lock_wait(&self->lock);
    PyObject *list = ring_list(&self->shared);
    lock_release(&self->lock);
    return list;
}

static PyMethodDef shard_methods[] = {
    {"put", (PyCFunction)shard_put, METH_O, "Keep an object. Owner only."},
    {"take_private", (PyCFunction)shard_take_private, METH_NOARGS, "Take a private object, or None. Owner only."},
    {"take_newest", (PyCFunction)shard_take_newest, METH_NOARGS,
     "Take the object put last to the shared list, or None."},
    {"take_oldest", (PyCFunction)shard_take_oldest, METH_NOARGS,
     "Take the object put first to the shared list, or None."},
    {"free_newest", (PyCFunction)shard_free_newest, METH_NOARGS, "Free one shared object; False if there was none."},
    {"holds_private", (PyCFunction)shard_holds_private, METH_O, "Whether the object is private."},
    {"renew_lock", (PyCFunction)shard_renew_lock, METH_NOARGS, "In the child of a fork: release the lock."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef shard_members[] = {
    {"counters", T_OBJECT_EX, offsetof(ShardObject, counters), READONLY, NULL},
    {"slots", T_PYSSIZET, offsetof(ShardObject, slots), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef shard_getset[] = {
    {"private", (getter)shard_get_private, NULL, "A copy of the private list. Only while the owner does not use it.",
     NULL},
    {"shared", (getter)shard_get_shared, NULL, "A copy of the shared list.", NULL},
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
    "aiopool._native._extension.Shard", sizeof(ShardObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, shard_slots,
};
