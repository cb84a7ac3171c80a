/* The compiled twin of the hot path: pin, the shard, and the usual case of get and put.

   It does what _processor.py, _shard.py and _pool.py do, in their order and with their words, and gives the same
   answers; they are the reference, and the place to read first. Whatever is unusual (a first pin in a context, a miss, a
   steal, the victim, reset, max_idle) is left to the Python code, which works on these types as on its own.

   Where the speed comes from:
   - a pin is cached for each thread together with the version of the thread's context. CPython changes the version
     whenever another context becomes the current one, so as long as it is the same, the ContextVar need not be asked;
   - a processor remembers the shards that it used last, by the generation of the primary shards that they belong to.

   With a GIL nothing else runs while we are in here, and no lock is needed: every function below finishes its work on
   a shard before it calls anything that can run Python code. Without a GIL there are two dangers. Stealers reach the
   shared list: it has a lock, held for a few instructions in which no Python code runs and no object dies. And
   another thread may drop a shard that its owner is just using: see "busy". */

#include <Python.h>
#include <structmember.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- what differs between versions and builds --- */

#ifdef Py_GIL_DISABLED
typedef atomic_int Flag;
typedef _Atomic(uint64_t) Number;
typedef _Atomic(unsigned long) Ident;
#else
typedef int Flag;
typedef uint64_t Number;
typedef unsigned long Ident;
#endif

#ifndef Py_BEGIN_CRITICAL_SECTION /* 3.12 and before: the GIL is the section */
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

#ifdef _MSC_VER
#define THREAD_LOCAL __declspec(thread)
#else
#define THREAD_LOCAL _Thread_local
#endif

/* A lock that is only tried; with a GIL it is always free. Its holder runs no Python code and frees nothing. */
static inline bool
lock_try(Flag *lock)
{
#ifdef Py_GIL_DISABLED
    int unlocked = 0;
    return atomic_compare_exchange_strong(lock, &unlocked, 1);
#else
    (void)lock;
    return true;
#endif
}

static inline void
lock_release(Flag *lock)
{
#ifdef Py_GIL_DISABLED
    atomic_store_explicit(lock, 0, memory_order_release);
#else
    (void)lock;
#endif
}

/* --- module state --- */

typedef struct IdentityObject IdentityObject;
typedef struct BorrowObject BorrowObject;

/* A pin that was found valid. It holds while the same thread runs in the same context, which the version tells: CPython
   counts it up whenever a thread enters or leaves a context. The processor is borrowed: it lives until it is released,
   which happens in its own thread, and clears this. */
typedef struct {
    IdentityObject *processor;
    uint64_t thread_state;
    uint64_t context_version;
    uint64_t serial; /* of the module, since a thread can run several interpreters one after another */
} Pin;

typedef struct {
#ifndef Py_GIL_DISABLED
    Pin last_pin;
#endif
    uint64_t serial; /* no other module object in this process has it, or ever had */
    Number generations; /* how many were numbered */
    PyTypeObject *identity_type;
    PyTypeObject *tally_type;
    PyTypeObject *shard_type;
    PyTypeObject *pool_type;
    PyTypeObject *borrow_type;
    PyTypeObject *ready_type;
    BorrowObject *spare_borrow;
    PyTypeObject *public_type; /* the class that users make pools of */
    PyObject *pinned; /* the ContextVar */
    PyObject *get;
    PyObject *put;
    PyObject *get_slow;
    PyObject *put_slow;
    PyObject *abandon;
} State;

static struct PyModuleDef native_module;

static State *
state_of(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &native_module);
    return module == NULL ? NULL : PyModule_GetState(module);
}

/* What looks at the state to its very end keeps the module, from birth to death. To keep the type is not enough: when a
   whole interpreter is garbage, the collector cuts a type off its module, and the state would be freed under objects
   that are still to die. */
static bool
keep_module(PyTypeObject *type, PyObject **module, State **state)
{
    PyObject *found = PyType_GetModuleByDef(type, &native_module);
    if (found == NULL) {
        return false;
    }
    *module = Py_NewRef(found);
    *state = PyModule_GetState(found);
    return true;
}

/* For objects that refer to nothing but their type. Even those the collector must know: the type leads to the module,
   and from there to everything else. */
static int
traverse_type(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void
free_plain(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* --- Identity: what a processor is made of here --- */

typedef struct ShardObject ShardObject;

/* A shard that the processor used, and the primary shards that it is one of. Borrowed: those keep it alive for as long
   as they are the pool's primary shards, and the number of a generation is never used again. */
typedef struct {
    uint64_t generation;
    ShardObject *shard;
} Remembered;

enum { REMEMBERED = 8 };

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
    return ring_list(&self->shared);
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
    {"shared", (getter)shard_get_shared, NULL, "A list of the shared objects, of a shard at rest.", NULL},
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

/* --- Pool: the usual case of get and put --- */

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

/* Put our methods on the class itself, in the place of its own. Inherited from the base they would be slower: CPython's
   shortcut for calls of C methods wants them to be of the very type of the object. */
static PyObject *
speed_up(PyObject *module, PyObject *type)
{
    State *state = PyModule_GetState(module);
    if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, state->pool_type)) {
        return PyErr_Format(PyExc_TypeError, "speed_up() takes a subclass of Base, not %.80R", type);
    }
    Py_XSETREF(state->public_type, (PyTypeObject *)Py_NewRef(type));
    for (PyMethodDef *method = pool_methods; method->ml_name != NULL; method++) {
        PyObject *descriptor = PyDescr_NewMethod((PyTypeObject *)type, method);
        if (descriptor == NULL) {
            return NULL;
        }
        int failed = PyObject_SetAttrString(type, method->ml_name, descriptor);
        Py_DECREF(descriptor);
        if (failed) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

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

/* --- Borrow --- */

struct BorrowObject {
    PyObject_HEAD
    vectorcallfunc call;
    State *state;
    PyObject *pool; /* from birth to death, and with it the state: cycles through it are broken in the pool */
    PyObject *held; /* NULL outside of the block */
};

static PyObject *borrow_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames);

static PyObject *
pool_borrow(PoolObject *self, PyObject *Py_UNUSED(ignored))
{
    State *state = self->state;
    BorrowObject *borrow = state->spare_borrow;
    if (borrow != NULL) {
        state->spare_borrow = NULL;
        Py_INCREF(state->borrow_type);
        _Py_NewReference((PyObject *)borrow);
    }
    else {
        borrow = PyObject_GC_New(BorrowObject, state->borrow_type);
        if (borrow == NULL) {
            return NULL;
        }
        borrow->state = state;
        borrow->call = borrow_call;
    }
    borrow->pool = Py_NewRef(self);
    borrow->held = NULL;
    PyObject_GC_Track(borrow);
    return (PyObject *)borrow;
}

static int
borrow_traverse(BorrowObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->pool);
    Py_VISIT(self->held);
    return 0;
}

static int
borrow_clear(BorrowObject *self)
{
    Py_CLEAR(self->held);
    return 0;
}

/* Frees the memory, or keeps it for the next block: to allocate one costs as much as a get. */
static void
borrow_free(BorrowObject *self)
{
#ifndef Py_GIL_DISABLED
    State *state = self->state;
    if (state->spare_borrow == NULL && state->pinned != NULL) { /* NULL: the module was cleared */
        state->spare_borrow = self;
        return;
    }
#endif
    PyObject_GC_Del(self);
}

static void
borrow_dealloc(BorrowObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject *pool = self->pool;
    PyObject_GC_UnTrack(self);
    borrow_clear(self);
    borrow_free(self);
    Py_DECREF(pool); /* late: the state may go with it */
    Py_DECREF(type);
}

/* A subclass may have a get and a put of its own. */
static inline bool
has_our_methods(BorrowObject *self)
{
    return Py_IS_TYPE(self->pool, self->state->public_type);
}

/* Let the borrow hold obj instead of what it held. In one step, so that two threads that leave a block by the same
   borrow cannot both take the object out. */
static inline PyObject *
exchange_held(BorrowObject *self, PyObject *obj)
{
    PyObject *held;
    Py_BEGIN_CRITICAL_SECTION(self);
    held = self->held;
    self->held = obj;
    Py_END_CRITICAL_SECTION();
    return held;
}

/* An object whose repr raises must not hide the error that names it. */
static PyObject *
shown(PyObject *obj)
{
    PyObject *repr = PyObject_Repr(obj);
    if (repr == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        repr = PyUnicode_FromFormat("<%s instance at %p>", Py_TYPE(obj)->tp_name, (void *)obj);
    }
    return repr;
}

static PyObject *
refuse_to_enter(BorrowObject *self)
{
    PyObject *held;
    Py_BEGIN_CRITICAL_SECTION(self);
    held = Py_NewRef(self->held == NULL ? Py_None : self->held); /* NULL: another thread left the block just now */
    Py_END_CRITICAL_SECTION();
    PyObject *repr = shown(held);
    if (repr != NULL) {
        PyErr_Format(PyExc_RuntimeError, "this borrow holds %.80U already: call borrow() for each block", repr);
        Py_DECREF(repr);
    }
    Py_DECREF(held);
    return NULL;
}

static PyObject *
borrow_enter(BorrowObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->held != NULL) {
        return refuse_to_enter(self);
    }
    PyObject *obj = has_our_methods(self) ? pool_get((PoolObject *)self->pool, NULL)
                                          : PyObject_CallMethodNoArgs(self->pool, self->state->get);
    if (obj == NULL) {
        return NULL;
    }
    Py_XDECREF(exchange_held(self, Py_NewRef(obj))); /* new() may have entered this very borrow */
    return obj;
}

static PyObject *
borrow_exit(BorrowObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) {
        return PyErr_Format(PyExc_TypeError, "__exit__() takes exactly 3 arguments (%zd given)", nargs);
    }
    PyObject *obj = exchange_held(self, NULL);
    if (obj == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *result;
    if (args[0] == Py_None) {
        result = has_our_methods(self) ? pool_put((PoolObject *)self->pool, obj)
                                       : PyObject_CallMethodOneArg(self->pool, self->state->put, obj);
    }
    else if (obj != Py_None) {
        result = PyObject_CallMethodNoArgs(self->pool, self->state->abandon);
    }
    else {
        result = Py_NewRef(Py_None);
    }
    Py_DECREF(obj);
    return result;
}

/* A with statement binds __enter__ and __exit__ to the block's object before it calls them, and making two bound methods
   costs as much as all the rest. So both are attributes that give the object itself, and calling it enters or leaves. */
static PyObject *
borrow_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames) != 0) {
        PyErr_SetString(PyExc_TypeError, "__enter__() and __exit__() take no keyword arguments");
        return NULL;
    }
    return nargs == 0 ? borrow_enter((BorrowObject *)self, NULL) : borrow_exit((BorrowObject *)self, args, nargs);
}

static PyObject *
itself_get(PyObject *self, PyObject *instance, PyObject *Py_UNUSED(type))
{
    return Py_NewRef(instance == NULL ? self : instance);
}

/* ExitStack takes both from the class, and calls them with the borrow in front. */
static PyObject *
itself_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    State *state = state_of(Py_TYPE(self));
    if (state == NULL) {
        return NULL;
    }
    if (PyTuple_GET_SIZE(args) == 0 || !Py_IS_TYPE(PyTuple_GET_ITEM(args, 0), state->borrow_type)) {
        PyErr_SetString(PyExc_TypeError, "__enter__() and __exit__() of a class take a borrow first");
        return NULL;
    }
    PyObject *rest = PyTuple_GetSlice(args, 1, PyTuple_GET_SIZE(args));
    if (rest == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_Call(PyTuple_GET_ITEM(args, 0), rest, kwargs);
    Py_DECREF(rest);
    return result;
}

static PyType_Slot itself_slots[] = {
    {Py_tp_doc, "An attribute that gives the object whose attribute it is."},
    {Py_tp_call, itself_call},
    {Py_tp_dealloc, free_plain},
    {Py_tp_traverse, traverse_type},
    {Py_tp_descr_get, itself_get},
    {0, NULL},
};

static PyType_Spec itself_spec = {
    "aiopool._native.Itself", sizeof(PyObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, itself_slots,
};

/* An awaitable with its answer ready. */
typedef struct {
    PyObject_HEAD
    PyObject *answer;
} ReadyObject;

static PyObject *
ready(State *state, PyObject *answer)
{
    if (answer == NULL) {
        return NULL;
    }
    ReadyObject *self = PyObject_GC_New(ReadyObject, state->ready_type);
    if (self == NULL) {
        Py_DECREF(answer);
        return NULL;
    }
    self->answer = answer;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static PyObject *
ready_await(PyObject *self)
{
    return Py_NewRef(self);
}

static PyObject *
ready_next(ReadyObject *self)
{
    PyObject *answer;
    Py_BEGIN_CRITICAL_SECTION(self);
    answer = self->answer;
    self->answer = NULL;
    Py_END_CRITICAL_SECTION();
    if (answer == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "cannot await the same block twice");
        return NULL;
    }
    /* Called, not set: a tuple would be taken for the exception's arguments. */
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, answer);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    Py_DECREF(answer);
    return NULL;
}

static int
ready_traverse(ReadyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->answer);
    return 0;
}

static int
ready_clear(ReadyObject *self)
{
    Py_CLEAR(self->answer);
    return 0;
}

static void
ready_dealloc(ReadyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    ready_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot ready_slots[] = {
    {Py_tp_dealloc, ready_dealloc},
    {Py_tp_traverse, ready_traverse},
    {Py_tp_clear, ready_clear},
    {Py_am_await, ready_await},
    {Py_tp_iter, ready_await},
    {Py_tp_iternext, ready_next},
    {0, NULL},
};

static PyType_Spec ready_spec = {
    "aiopool._native.Ready", sizeof(ReadyObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, ready_slots,
};

static PyObject *
borrow_aenter(BorrowObject *self, PyObject *Py_UNUSED(ignored))
{
    return ready(self->state, borrow_enter(self, NULL));
}

static PyObject *
borrow_aexit(BorrowObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return ready(self->state, borrow_exit(self, args, nargs));
}

static PyMethodDef borrow_methods[] = {
    {"__aenter__", (PyCFunction)borrow_aenter, METH_NOARGS, NULL},
    {"__aexit__", (PyCFunction)(void (*)(void))borrow_aexit, METH_FASTCALL, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef borrow_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(BorrowObject, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot borrow_slots[] = {
    {Py_tp_doc, "An object from a pool for the time of one block. Made by `Pool.borrow`."},
    {Py_tp_dealloc, borrow_dealloc},
    {Py_tp_traverse, borrow_traverse},
    {Py_tp_clear, borrow_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_methods, borrow_methods},
    {Py_tp_members, borrow_members},
    {0, NULL},
};

static PyType_Spec borrow_spec = {
    "aiopool._native.Borrow", sizeof(BorrowObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_VECTORCALL,
    borrow_slots,
};

/* --- the module --- */

/* Which ContextVar carries the processor. */
static PyObject *
bind_pins_to(PyObject *module, PyObject *variable)
{
    State *state = PyModule_GetState(module);
    if (!PyContextVar_CheckExact(variable)) {
        return PyErr_Format(PyExc_TypeError, "bind_pins_to() takes a ContextVar, not %.80R", variable);
    }
    Py_XSETREF(state->pinned, Py_NewRef(variable));
    Py_RETURN_NONE;
}

static PyMethodDef native_methods[] = {
    {"bind_pins_to", bind_pins_to, METH_O, "Tell which ContextVar carries the processor."},
    {"forget_pin", forget_pin, METH_NOARGS, "Ask the ContextVar anew at this thread's next pin."},
    {"quiesce", quiesce, METH_O, "Let each processor that is busy with a shard be done with it."},
    {"speed_up", speed_up, METH_O, "Give a subclass of Base our get, put and borrow."},
    {NULL, NULL, 0, NULL},
};

static int
add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type == NULL ? -1 : PyModule_AddType(module, *type);
}

static int
add_enter_and_exit(PyObject *module, PyTypeObject *type)
{
    PyObject *itself_type = PyType_FromModuleAndSpec(module, &itself_spec, NULL);
    PyObject *itself = itself_type == NULL ? NULL : PyObject_CallNoArgs(itself_type);
    int failed = itself == NULL || PyObject_SetAttrString((PyObject *)type, "__enter__", itself) < 0
                 || PyObject_SetAttrString((PyObject *)type, "__exit__", itself) < 0;
    Py_XDECREF(itself);
    Py_XDECREF(itself_type);
    return failed ? -1 : 0;
}

static int
native_exec(PyObject *module)
{
    static atomic_ullong last_serial;
    State *state = PyModule_GetState(module);
    state->serial = ++last_serial;
    if (add_type(module, &identity_spec, &state->identity_type) < 0
        || add_type(module, &tally_spec, &state->tally_type) < 0
        || add_type(module, &shard_spec, &state->shard_type) < 0
        || add_type(module, &pool_spec, &state->pool_type) < 0
        || add_type(module, &borrow_spec, &state->borrow_type) < 0
        || add_type(module, &ready_spec, &state->ready_type) < 0) {
        return -1;
    }
    if (add_enter_and_exit(module, state->borrow_type) < 0) {
        return -1;
    }
    state->get = PyUnicode_InternFromString("get");
    state->put = PyUnicode_InternFromString("put");
    state->get_slow = PyUnicode_InternFromString("_get_slow");
    state->put_slow = PyUnicode_InternFromString("_put_slow");
    state->abandon = PyUnicode_InternFromString("_abandon");
    return state->get && state->put && state->get_slow && state->put_slow && state->abandon ? 0 : -1;
}

static int
native_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->identity_type);
    Py_VISIT(state->tally_type);
    Py_VISIT(state->shard_type);
    Py_VISIT(state->pool_type);
    Py_VISIT(state->borrow_type);
    Py_VISIT(state->ready_type);
    Py_VISIT(state->public_type);
    Py_VISIT(state->pinned);
    return 0;
}

static int
native_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->pinned); /* first: from now on no borrow is kept */
    if (state->spare_borrow != NULL) {
        PyObject_GC_Del(state->spare_borrow); /* before its type */
        state->spare_borrow = NULL;
    }
    Py_CLEAR(state->identity_type);
    Py_CLEAR(state->tally_type);
    Py_CLEAR(state->shard_type);
    Py_CLEAR(state->pool_type);
    Py_CLEAR(state->borrow_type);
    Py_CLEAR(state->ready_type);
    Py_CLEAR(state->public_type);
    Py_CLEAR(state->get);
    Py_CLEAR(state->put);
    Py_CLEAR(state->get_slow);
    Py_CLEAR(state->put_slow);
    Py_CLEAR(state->abandon);
    return 0;
}

static void
native_free(void *module)
{
    native_clear(module);
}

static PyModuleDef_Slot native_slots[] = {
    {Py_mod_exec, native_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef native_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "aiopool._native",
    .m_doc = "The compiled twin of the hot path.",
    .m_size = sizeof(State),
    .m_methods = native_methods,
    .m_slots = native_slots,
    .m_traverse = native_traverse,
    .m_clear = native_clear,
    .m_free = native_free,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&native_module);
}
