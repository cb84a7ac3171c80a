/* The C version of Borrow in _pool.py: an object from a pool for the duration of one block. */

#pragma once

#include "pool.h"

struct BorrowObject {
    PyObject_HEAD
    vectorcallfunc call;
    State *state;
    PyObject *pool; /* never cleared, because it keeps the state alive: the pool breaks reference cycles */
    PyObject *held; /* NULL outside the block */
};

static PyObject *borrow_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames);

/* Allocating a borrow costs as much as a get, so one is kept for the next block. With a GIL each interpreter keeps one,
   which holds no references. Without a GIL each processor keeps one, which continues to hold its pool and its type:
   both are shared, and changing their reference counts would make all processors write to the same memory. A garbage
   collection drops it, so that it does not keep a pool alive forever (drop_spare_borrows). */
#ifdef Py_GIL_DISABLED
static BorrowObject *
take_spare_borrow(State *state, PoolObject *pool)
{
    IdentityObject *processor = pin(state);
    BorrowObject *spare = processor == NULL ? NULL : atomic_exchange(&processor->spare_borrow, NULL);
    if (spare != NULL && spare->pool != (PyObject *)pool) {
        Py_DECREF(spare->pool);
        spare->pool = Py_NewRef(pool);
    }
    return spare;
}

static bool
keep_spare_borrow(BorrowObject *self)
{
    if (self->state->pinned == NULL || PyErr_Occurred() != NULL) {
        return false; /* the module was cleared; or an exception is being raised, which a pin would clear */
    }
    IdentityObject *processor = pin(self->state);
    BorrowObject *none = NULL;
    return processor != NULL && atomic_compare_exchange_strong(&processor->spare_borrow, &none, self);
}

static void
drop_spare_borrow(IdentityObject *processor)
{
    BorrowObject *spare = atomic_exchange(&processor->spare_borrow, NULL);
    if (spare != NULL) {
        PyTypeObject *type = Py_TYPE(spare);
        PyObject *pool = spare->pool;
        PyObject_GC_Del(spare);
        Py_DECREF(pool);
        Py_DECREF(type);
    }
}
static PyObject *
drop_spare_borrows(PyObject *module, PyObject *processors)
{
    State *state = PyModule_GetState(module);
    for (Py_ssize_t i = 0; PyList_CheckExact(processors) && i < PyList_GET_SIZE(processors); i++) {
        PyObject *each = PyList_GET_ITEM(processors, i);
        if (PyObject_TypeCheck(each, state->identity_type)) {
            drop_spare_borrow((IdentityObject *)each);
        }
    }
    Py_RETURN_NONE;
}

#else
static BorrowObject *
take_spare_borrow(State *state, PoolObject *pool)
{
    BorrowObject *spare = state->spare_borrow;
    if (spare != NULL) {
        state->spare_borrow = NULL;
        Py_INCREF(state->borrow_type);
        spare->pool = Py_NewRef(pool);
    }
    return spare;
}

static bool
keep_spare_borrow(BorrowObject *self)
{
    State *state = self->state;
    if (state->spare_borrow != NULL || state->pinned == NULL) { /* NULL: the module was cleared */
        return false;
    }
    PyObject *pool = self->pool;
    state->spare_borrow = self;
    Py_DECREF(state->borrow_type);
    Py_DECREF(pool); /* last, because this may free the state */
    return true;
}

static void
drop_spare_borrow(IdentityObject *Py_UNUSED(processor))
{
}
#endif

static PyObject *
pool_borrow(PoolObject *self, PyObject *Py_UNUSED(ignored))
{
    State *state = self->state;
    BorrowObject *borrow = take_spare_borrow(state, self);
    if (borrow != NULL) {
        _Py_NewReference((PyObject *)borrow);
    }
    else {
        borrow = PyObject_GC_New(BorrowObject, state->borrow_type);
        if (borrow == NULL) {
            return NULL;
        }
        borrow->state = state;
        borrow->call = borrow_call;
        borrow->pool = Py_NewRef(self);
    }
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

static void
borrow_dealloc(BorrowObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, borrow_dealloc) /* the held object may hold a borrow, and so on */
    borrow_clear(self);
    if (!keep_spare_borrow(self)) {
        PyTypeObject *type = Py_TYPE(self);
        PyObject *pool = self->pool;
        PyObject_GC_Del(self);
        Py_DECREF(pool); /* late, because this may free the state */
        Py_DECREF(type);
    }
    Py_TRASHCAN_END
}

/* False for a subclass, which may override get and put. */
static inline bool
has_our_methods(BorrowObject *self)
{
    return Py_IS_TYPE(self->pool, self->state->public_type);
}

/* Replace the held object with obj and return the old one. In one step, so that two threads that leave a block of the
   same borrow cannot both get the object. */
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


static PyObject *
refuse_to_enter(BorrowObject *self)
{
    PyObject *held;
    Py_BEGIN_CRITICAL_SECTION(self);
    held = Py_NewRef(self->held == NULL ? Py_None : self->held); /* NULL: another thread has just left the block */
    Py_END_CRITICAL_SECTION();
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(held), "__qualname__");
    if (name != NULL) {
        PyErr_Format(PyExc_RuntimeError, "this borrow holds <%U object at %p> already: call borrow() for each block",
                     name, (void *)held);
        Py_DECREF(name);
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
    Py_XDECREF(exchange_held(self, Py_NewRef(obj))); /* new() may have entered this same borrow */
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
        result = PyObject_CallMethodOneArg(self->pool, self->state->abandon, obj);
    }
    else {
        result = Py_NewRef(Py_None);
    }
    Py_DECREF(obj);
    return result;
}

/* A with statement binds __enter__ and __exit__ to its object before it calls them, and creating two bound methods
   costs as much as everything else. So both are attributes whose value is the object itself, and calling the object
   enters or leaves the block. */
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

/* ExitStack gets both from the class, and calls them with the borrow as the first argument. */
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
    {Py_tp_doc, "An attribute whose value is the object that it belongs to."},
    {Py_tp_call, itself_call},
    {Py_tp_dealloc, free_plain},
    {Py_tp_traverse, traverse_type},
    {Py_tp_descr_get, itself_get},
    {0, NULL},
};

static PyType_Spec itself_spec = {
    "aiopool._native._extension.Itself", sizeof(PyObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, itself_slots,
};

/* An awaitable whose result is ready. */
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
    /* Created by a call, because PyErr_SetObject would use a tuple as the exception's arguments. */
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
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, ready_dealloc)
    PyTypeObject *type = Py_TYPE(self);
    ready_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
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
    "aiopool._native._extension.Ready", sizeof(ReadyObject), 0,
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
    {Py_tp_doc, "An object from a pool for the duration of one block. Created by `Pool.borrow`."},
    {Py_tp_dealloc, borrow_dealloc},
    {Py_tp_traverse, borrow_traverse},
    {Py_tp_clear, borrow_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_methods, borrow_methods},
    {Py_tp_members, borrow_members},
    {0, NULL},
};

static PyType_Spec borrow_spec = {
    "aiopool._native._extension.Borrow", sizeof(BorrowObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_VECTORCALL,
    borrow_slots,
};
