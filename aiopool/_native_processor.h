/* The twin of _processor.py: what a processor is made of here, and the pin. */

#pragma once

#include "_native_state.h"

typedef struct ShardObject ShardObject;

/* A shard that the processor used, and the primary shards that it is one of. Borrowed: those keep it alive for as long
   as they are the pool's primary shards, and the number of a generation is never used again. */
typedef struct {
    uint64_t generation;
    ShardObject *shard;
} Remembered;

enum { REMEMBERED = 16 };

struct IdentityObject {
    PyObject_HEAD
    PyObject *module;
    State *state;
    PyObject *id;
    Ident thread_id; /* 0: released, or nobody's */
    Flag busy;
    Remembered remembered[REMEMBERED];
};

/* "busy": without a GIL another thread may run two cleanup cycles while an owner stands between finding its shard and
   being done with it, and the shard would be freed under it. So the owner raises its flag before it looks at the pool's
   generation, and lowers it when done. Who drops shards took them out of their pool first, and then lets each flag that
   it finds up come down once (quiesce): an owner that raises its flag later sees the new generation. Both the flag and
   the generation are accessed in the one total order of sequentially consistent atomics; anything weaker would let both
   sides miss each other. The flag lies in the processor, so no other thread's cache line slows the owner. */
static inline void
busy_begin(IdentityObject *processor)
{
#ifdef Py_GIL_DISABLED
    atomic_store(&processor->busy, 1);
#else
    (void)processor;
#endif
}

static inline void
busy_end(IdentityObject *processor)
{
#ifdef Py_GIL_DISABLED
    atomic_store_explicit(&processor->busy, 0, memory_order_release);
#else
    (void)processor;
#endif
}

/* The last pin of this thread. With a GIL one place serves all threads, for they take turns of milliseconds. */
#ifdef Py_GIL_DISABLED
static THREAD_LOCAL Pin last_pin_of_thread;
#endif

static inline Pin *
last_pin(State *state)
{
#ifdef Py_GIL_DISABLED
    (void)state;
    return &last_pin_of_thread;
#else
    return &state->last_pin;
#endif
}

static IdentityObject *
pin_in_another_context(State *state, PyThreadState *thread)
{
    PyObject *bound;
    if (state->pinned == NULL) { /* not bound yet, or the module was cleared */
        return NULL;
    }
    if (PyContextVar_Get(state->pinned, NULL, &bound) < 0) {
        PyErr_Clear(); /* the slow path asks again, and raises */
        return NULL;
    }
    if (bound == NULL) {
        return NULL;
    }
    IdentityObject *processor = NULL;
    if (PyObject_TypeCheck(bound, state->identity_type)
        && ((IdentityObject *)bound)->thread_id == PyThread_get_thread_ident()) {
        processor = (IdentityObject *)bound;
        *last_pin(state) = (Pin){processor, thread->id, thread->context_ver, state->serial};
    }
    Py_DECREF(bound); /* its thread keeps it */
    return processor;
}

/* The processor that the current context is bound to, if that is this thread's; else NULL. Borrowed. */
static inline IdentityObject *
pin(State *state)
{
    PyThreadState *thread = PyThreadState_Get();
    const Pin *last = last_pin(state);
    if (last->context_version == thread->context_ver && last->thread_state == thread->id
        && last->serial == state->serial && last->processor != NULL) {
        return last->processor;
    }
    return pin_in_another_context(state, thread);
}

static PyObject *
forget_pin(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    last_pin(PyModule_GetState(module))->processor = NULL;
    Py_RETURN_NONE;
}

static PyObject *
identity_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    IdentityObject *self = (IdentityObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->id = PyLong_FromLong(0);
    if (self->id == NULL || !keep_module(type, &self->module, &self->state)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* It will not pass for a pin any more. */
static void
unpin(IdentityObject *self)
{
    Pin *last = last_pin(self->state);
    if (last->processor == self) {
        last->processor = NULL;
    }
}

static int
identity_traverse(IdentityObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    Py_VISIT(self->id);
    return 0;
}

static void
identity_dealloc(IdentityObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->state != NULL) {
        unpin(self);
    }
    Py_XDECREF(self->id);
    Py_XDECREF(self->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
identity_get_thread_id(IdentityObject *self, void *Py_UNUSED(closure))
{
    unsigned long ident = self->thread_id;
    if (ident == 0) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLong(ident);
}

static int
identity_set_thread_id(IdentityObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    unsigned long ident = 0;
    if (value != NULL && value != Py_None) {
        ident = PyLong_AsUnsignedLong(value);
        if (ident == (unsigned long)-1 && PyErr_Occurred()) {
            return -1;
        }
    }
    self->thread_id = ident;
    unpin(self);
    return 0;
}

static PyMemberDef identity_members[] = {
    {"id", T_OBJECT_EX, offsetof(IdentityObject, id), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef identity_getset[] = {
    {"thread_id", (getter)identity_get_thread_id, (setter)identity_set_thread_id, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot identity_slots[] = {
    {Py_tp_doc, "The id and the thread of a processor."},
    {Py_tp_new, identity_new},
    {Py_tp_dealloc, identity_dealloc},
    {Py_tp_traverse, identity_traverse},
    {Py_tp_members, identity_members},
    {Py_tp_getset, identity_getset},
    {0, NULL},
};

static PyType_Spec identity_spec = {
    "aiopool._native.Identity", sizeof(IdentityObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, identity_slots,
};

/* Let each processor that is busy with a shard be done with it. */
static PyObject *
quiesce(PyObject *module, PyObject *processors)
{
    State *state = PyModule_GetState(module);
    if (!PyList_CheckExact(processors)) {
        PyErr_SetString(PyExc_TypeError, "quiesce() takes a list of processors");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(processors); i++) {
        PyObject *each = PyList_GET_ITEM(processors, i);
        if (!PyObject_TypeCheck(each, state->identity_type)) {
            PyErr_SetString(PyExc_TypeError, "quiesce() takes a list of processors");
            return NULL;
        }
#ifdef Py_GIL_DISABLED
        /* A few instructions long, unless the system took the owner off its core: then let others run. */
        for (int spins = 1; atomic_load(&((IdentityObject *)each)->busy); spins++) {
            if (spins % 1024 == 0) {
                Py_BEGIN_ALLOW_THREADS
                Py_END_ALLOW_THREADS
            }
        }
#endif
    }
    Py_RETURN_NONE;
}
