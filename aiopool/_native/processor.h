/* The C version of _core/processor.py: the part of a processor that is used from C, and the pin. */

#pragma once

#include "state.h"

typedef struct ShardObject ShardObject;
typedef struct CountersObject CountersObject;

/* The processor's shard and counters in a store, and the number of the store's generation. The references are borrowed:
   the store keeps both alive as long as that generation is its primary, and numbers of generations are never reused. */
typedef struct {
    uint64_t generation;
    ShardObject *shard;       /* NULL: not looked up yet */
    CountersObject *counters; /* NULL: not looked up yet */
} Remembered;

enum { REMEMBERED = 32 };

struct IdentityObject {
    PyObject_HEAD
    PyObject *module;
    State *state;
    Py_ssize_t id;
    Ident thread_id;         /* 0: released, parked, or never owned by a thread */
    SHARED(double) wakes_at; /* when the timer on its loop fires; any thread may set it, from Python */
    PyObject *loop_ref; /* a weak reference to the asyncio loop that its thread ran last, or None */
    PyObject *mark;     /* that loop's mark, for loop-bound stores, or None */
    Flag busy;
    SHARED(BorrowObject *) spare_borrow;
    Remembered remembered[REMEMBERED];
    PADDING
};

/* "busy": without a GIL another thread may run two cleanup cycles after an owner found a shard and before it has
   finished with it, and would free the shard while it is in use. So the owner sets its flag before it reads a store's
   generations, and clears it when it has finished. Code that frees shards removes them from their store first, and then
   waits until each flag that it finds set has been cleared once (wait_for_busy): an owner that sets its flag later sees
   the new generations. Both the flag and the generations are accessed with sequentially consistent atomics, which have one
   total order; with a weaker order both sides could miss each other's write. The flag is in the processor, so the owner
   writes only to its own cache lines. */
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

/* The last pin of this thread. With a GIL one place serves all threads, because each runs for milliseconds in turn. */
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

/* The processor that this thread pinned last, which need not be bound in the current context. */
typedef struct {
    IdentityObject *processor; /* borrowed, because its thread keeps it alive */
    uint64_t serial;
} Own;

static THREAD_LOCAL Own own_of_thread;

static inline bool
is_own(IdentityObject *processor)
{
    return processor->thread_id == PyThread_get_thread_ident();
}

static IdentityObject *
cache_pin(State *state, PyThreadState *thread, IdentityObject *processor)
{
    *last_pin(state) = (Pin){processor, false, false, thread->id, thread->context_ver, state->serial};
    own_of_thread = (Own){processor, state->serial};
    return processor;
}

static bool
refers_to(PyObject *reference, PyObject *object)
{
#if PY_VERSION_HEX >= 0x030d0000
    PyObject *referent = NULL;
    if (!PyWeakref_Check(reference) || PyWeakref_GetRef(reference, &referent) <= 0) {
        return false;
    }
    Py_DECREF(referent); /* if it is the object, the caller has another reference */
    return referent == object;
#else
    /* A dead reference refers to None, and off-loop the running loop is None too. */
    return object != Py_None && PyWeakref_Check(reference) && PyWeakref_GET_OBJECT(reference) == object;
#endif
}

/* Bind this thread's processor in a context without a binding, such as that of a new task, if the thread still runs the
   loop that the processor ran last. Everything else is left to Python. */
static IdentityObject *
bind_own(State *state, PyThreadState *thread)
{
    IdentityObject *own = own_of_thread.processor;
    if (own == NULL || own_of_thread.serial != state->serial || state->get_running_loop == NULL || !is_own(own)
        || own->loop_ref == NULL) {
        return NULL;
    }
    PyObject *loop = PyObject_CallNoArgs(state->get_running_loop);
    bool same = loop != NULL && refers_to(own->loop_ref, loop);
    Py_XDECREF(loop);
    PyObject *token = same ? PyContextVar_Set(state->pinned, (PyObject *)own) : NULL;
    if (token == NULL) {
        PyErr_Clear(); /* the slow path tries again, and raises */
        return NULL;
    }
    Py_DECREF(token);
    return cache_pin(state, thread, own);
}

static IdentityObject *
pin_in_another_context(State *state, PyThreadState *thread)
{
    PyObject *bound;
    if (state->pinned == NULL) { /* not bound yet, or the module was cleared */
        return NULL;
    }
    if (PyContextVar_Get(state->pinned, NULL, &bound) < 0) {
        PyErr_Clear(); /* the slow path tries again, and raises */
        return NULL;
    }
    if (bound == NULL) {
        return NULL;
    }
    bool holds = PyObject_TypeCheck(bound, state->identity_type) && is_own((IdentityObject *)bound);
    Py_DECREF(bound); /* its thread keeps it alive */
    return holds ? cache_pin(state, thread, (IdentityObject *)bound) : bind_own(state, thread);
}

static inline bool
is_current(State *state, const Pin *last, PyThreadState *thread)
{
    return last->context_version == thread->context_ver && last->thread_state == thread->id
           && last->serial == state->serial;
}

/* The processor bound in the current context, if it is this thread's; otherwise NULL. Borrowed. */
static inline IdentityObject *
pin(State *state)
{
    PyThreadState *thread = PyThreadState_Get();
    const Pin *last = last_pin(state);
    if (is_current(state, last, thread) && (last->processor != NULL || last->off_loop)) {
        return last->processor;
    }
    return pin_in_another_context(state, thread);
}

/* Whether no loop runs on this thread. A loop enters a context for each callback, so the answer stays the same as
   long as the context does. False means that only Python can tell. */
static bool
is_off_loop(State *state)
{
    PyThreadState *thread = PyThreadState_Get();
    Pin *last = last_pin(state);
    if (is_current(state, last, thread) && last->off_loop) {
        return true;
    }
    PyObject *loop = PyObject_CallNoArgs(state->get_running_loop);
    PyObject *trio = loop == Py_None ? PyImport_GetModule(state->trio) : NULL;
    bool off_loop = loop == Py_None && trio == NULL;
    Py_XDECREF(loop);
    Py_XDECREF(trio);
    PyErr_Clear(); /* Python tries again, and raises */
    if (off_loop) {
        *last = (Pin){NULL, true, false, thread->id, thread->context_ver, state->serial};
    }
    return off_loop;
}

/* Whether the running loop is the one that the processor, which is pinned, ran last. False means that only Python can
   tell. */
static inline bool
is_on_its_loop(State *state, IdentityObject *processor)
{
    Pin *last = last_pin(state);
    if (last->processor != processor || !last->on_its_loop) {
        PyObject *loop = PyObject_CallNoArgs(state->get_running_loop);
        PyObject *trio = PyImport_GetModule(state->trio); /* if not NULL, trio may run as a guest of the loop */
        last->on_its_loop = last->processor == processor && loop != NULL && trio == NULL
                            && refers_to(processor->loop_ref, loop);
        Py_XDECREF(loop);
        Py_XDECREF(trio);
        PyErr_Clear(); /* Python tries again, and raises */
    }
    return last->on_its_loop;
}

static PyObject *
identity_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    IdentityObject *self = (IdentityObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->wakes_at = Py_HUGE_VAL;
    self->loop_ref = Py_NewRef(Py_None);
    self->mark = Py_NewRef(Py_None);
    if (!keep_module(type, &self->module, &self->state)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* Remove the processor from this thread's caches. */
static void
unpin(IdentityObject *self)
{
    Pin *last = last_pin(self->state);
    if (last->processor == self) {
        last->processor = NULL;
    }
    if (own_of_thread.processor == self) {
        own_of_thread.processor = NULL;
    }
}

static void drop_spare_borrow(IdentityObject *self);

static int
identity_traverse(IdentityObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    Py_VISIT(self->loop_ref);
    Py_VISIT(self->mark);
    return 0;
}

static void
identity_dealloc(IdentityObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->state != NULL) {
        unpin(self);
        drop_spare_borrow(self);
    }
    Py_XDECREF(self->loop_ref);
    Py_XDECREF(self->mark);
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
    if (ident == 0) {
        drop_spare_borrow(self); /* the borrow holds a pool, and a context may keep this processor alive for long */
    }
    return 0;
}

static PyObject *
identity_get_loop_ref(IdentityObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->loop_ref);
}

/* Called only by the processor's own thread. Forgets the shards, because those of loop-bound stores belong to the
   previous loop. */
static int
identity_set_loop_ref(IdentityObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    memset(self->remembered, 0, sizeof(self->remembered));
    Py_XSETREF(self->mark, Py_NewRef(Py_None));
    Py_XSETREF(self->loop_ref, Py_NewRef(value == NULL ? Py_None : value));
    last_pin(self->state)->on_its_loop = false;
    return 0;
}

enum { LARGEST_ID = 1 << 20 }; /* more than a process has threads; limits the size of arrays indexed by id */

static PyObject *
identity_get_id(IdentityObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(self->id);
}

static int
identity_set_id(IdentityObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    Py_ssize_t id = value == NULL ? -1 : PyLong_AsSsize_t(value);
    if (id < 0 || id > LARGEST_ID) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_ValueError, "the id of a processor must be from 0 to %d", LARGEST_ID);
        }
        return -1;
    }
    self->id = id;
    return 0;
}

static PyMemberDef identity_members[] = {
    {"wakes_at", T_DOUBLE, offsetof(IdentityObject, wakes_at), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef identity_getset[] = {
    {"id", (getter)identity_get_id, (setter)identity_set_id, NULL, NULL},
    {"loop_ref", (getter)identity_get_loop_ref, (setter)identity_set_loop_ref, NULL, NULL},
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
    "aiopool._native._extension.Identity", sizeof(IdentityObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, identity_slots,
};

/* Wait until each processor that is busy has finished once. Runs no Python code and allocates nothing, so it cannot
   fail: what was removed from a store is freed after this, and could not be put back. */
static void
wait_for_busy(State *state)
{
#ifdef Py_GIL_DISABLED
    if (state->processors == NULL || is_finalizing()) {
        return; /* no other thread runs the code of this module any more */
    }
    bool waited[1024] = {false}; /* by id; processors with larger ids are waited for again after a restart */
    Py_BEGIN_CRITICAL_SECTION(state->processors);
    Py_ssize_t position = 0;
    PyObject *each;
    while (PyDict_Next(state->processors, &position, NULL, &each)) {
        IdentityObject *processor = (IdentityObject *)each;
        if (!PyObject_TypeCheck(each, state->identity_type)) {
            continue;
        }
        bool is_small = processor->id < (Py_ssize_t)Py_ARRAY_LENGTH(waited);
        if (is_small && waited[processor->id]) {
            continue;
        }
        if (is_small) {
            waited[processor->id] = true; /* also right for the next processor with this id, which begins later */
        }
        Py_INCREF(each);
        bool suspended = lock_wait_for(&processor->busy);
        Py_DECREF(each);
        if (suspended) {
            position = 0; /* other threads may have changed the dict, and a processor may have a smaller position now */
        }
    }
    Py_END_CRITICAL_SECTION();
#else
    (void)state;
#endif
}

static PyObject *
quiesce(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    wait_for_busy(PyModule_GetState(module));
    Py_RETURN_NONE;
}
