/* Beside _core/size_class.py and _core/block.py: blocks of one size, and the put that happens when no view is left.

   A block is its own exporter: CPython holds a reference to it for as long as any view over it lives. When the last is
   gone it would be deallocated, and instead it puts itself back. No collection ever ends it early, because the collector
   does not know blocks; and it need not: an idle block is in a store, and closing the size class empties that.

   A block keeps its size class, and with it the store, so that neither goes while another thread puts there. When the
   pool goes it closes its size classes. From then on blocks that come back are freed. */

#pragma once

#include "budget.h"
#include "pool.h"

typedef struct {
    PyObject_HEAD
    PyObject *module;
    State *state;
    Py_ssize_t size; /* 0: blocks are not kept, and each has the size that is asked for */
    StoreObject *store;
    BudgetObject *budget;
    PerProcessor in_use; /* bytes that are checked out */
    char wipe;
    Flag closed;
} SizeClassObject;

typedef struct {
    PyObject_HEAD
    SizeClassObject *size_class;
    char *bytes;
    Py_ssize_t size;
    Py_ssize_t length; /* of the view, while checked out */
    char idle;
    char checked_out;
    PADDING
} BlockObject;

/* --- Block --- */

/* Without a GIL a reference belongs to the thread that made the object, and when another one drops the last, CPython
   leaves the object to its thread, which may be asleep. Blocks go from thread to thread, so they belong to none. */
static void
belong_to_no_thread(PyObject *block)
{
#ifdef Py_GIL_DISABLED
    block->ob_tid = 0;
    Py_SET_REFCNT(block, 1);
#else
    (void)block;
#endif
}

static BlockObject *
block_make(SizeClassObject *size_class, Py_ssize_t size)
{
    PyTypeObject *type = size_class->state->block_type;
    BlockObject *self = (BlockObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    belong_to_no_thread((PyObject *)self);
    self->size_class = (SizeClassObject *)Py_NewRef(size_class);
    self->bytes = PyMem_RawCalloc(1, (size_t)size);
    if (self->bytes == NULL) {
        Py_DECREF(self);
        PyErr_NoMemory();
        return NULL;
    }
    self->size = size;
    return self;
}

static void size_class_empty(SizeClassObject *self);

/* private slot if free → own shared list; else as the slow path says. Takes over the only reference there is: from the
   moment that the block is idle another thread may have it, and it is not touched any more. */
static void
block_put(SizeClassObject *size_class, IdentityObject *processor, PyObject *block)
{
    StoreObject *store = size_class->store;
    if (processor != NULL) {
        busy_begin(processor);
        bool kept = keep_own(store, processor, block);
        busy_end(processor);
        if (kept) {
            return;
        }
    }
    /* While the interpreter goes, the Python code that this may run may be gone already, and nothing gets anything. */
    if (!is_finalizing()) {
        Runner runner;
        if (!store_pin(store, &runner) || store_keep_as(store, runner, block) < 0) {
            if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
                PyErr_Clear(); /* it just is not kept */
            }
            else {
                PyErr_WriteUnraisable((PyObject *)store);
            }
        }
        if (size_class->closed) {
            size_class_empty(size_class); /* closed in between: nothing else would free it */
        }
    }
    Py_DECREF(block); /* if it was not kept it is freed now, and counted then */
}

/* Whether it goes back to its store. Then it is alive again, and the caller must not touch it. */
static bool
block_put_itself(BlockObject *self, IdentityObject *processor)
{
    SizeClassObject *size_class = self->size_class;
    if (size_class->size == 0 || size_class->closed || !budget_reserve(size_class->budget, processor, self->size)) {
        return false;
    }
    self->idle = 1;
    _Py_NewReference((PyObject *)self);
    belong_to_no_thread((PyObject *)self);
    block_put(size_class, processor, (PyObject *)self);
    return true;
}

static bool
block_return(BlockObject *self)
{
    IdentityObject *processor = pin(self->size_class->state);
    self->checked_out = 0;
    per_processor_add(&self->size_class->in_use, processor, -(long long)self->size);
    if (self->size_class->wipe) {
        memset(self->bytes, 0, (size_t)self->length);
    }
    return block_put_itself(self, processor);
}

/* No view is left. */
static bool
block_come_back(BlockObject *self)
{
    if (PyErr_Occurred() == NULL) {
        return block_return(self);
    }
    PyObject *type, *error, *traceback; /* the code that let go of the last view is in the middle of raising */
    PyErr_Fetch(&type, &error, &traceback);
    bool lives = block_return(self); /* whose pin may already run code that clears the exception */
    PyErr_Restore(type, error, traceback);
    return lives;
}

static void
block_dealloc(BlockObject *self)
{
    if (self->checked_out && block_come_back(self)) {
        return;
    }
    PyTypeObject *type = Py_TYPE(self);
    SizeClassObject *size_class = self->size_class;
    if (self->idle) {
        budget_give_back(size_class->budget, NULL, self->size); /* freed by any thread: to be used by all */
    }
    PyMem_RawFree(self->bytes);
    type->tp_free(self);
    Py_XDECREF((PyObject *)size_class);
    Py_DECREF(type);
}

static int
block_getbuffer(BlockObject *self, Py_buffer *view, int flags)
{
    if (!self->checked_out) {
        view->obj = NULL;
        PyErr_SetString(PyExc_BufferError, "cannot export an idle block");
        return -1;
    }
    return PyBuffer_FillInfo(view, (PyObject *)self, self->bytes, self->length, 0, flags);
}

/* Whether an object from the store of size_class is an idle block of it; Python code that finds the store can put
   anything there. If not, it raises and drops the object. */
static inline bool
block_is_right(PyObject *object, SizeClassObject *size_class)
{
    BlockObject *block = (BlockObject *)object;
    if (Py_IS_TYPE(object, size_class->state->block_type) && block->size_class == size_class && block->idle) {
        return true;
    }
    PyErr_SetString(PyExc_TypeError, "the store of a size class held an object that is no idle block of it");
    Py_DECREF(object);
    return false;
}

/* A view of the first n bytes. Takes over the reference. */
static PyObject *
block_check_out(BlockObject *self, IdentityObject *processor, Py_ssize_t n)
{
    SizeClassObject *size_class = self->size_class;
    if (self->idle) { /* and not fresh */
        self->idle = 0;
        budget_give_back(size_class->budget, processor, self->size);
    }
    self->checked_out = 1;
    self->length = n;
    per_processor_add(&size_class->in_use, processor, self->size);
    PyObject *view = PyMemoryView_FromObject((PyObject *)self);
    Py_DECREF(self); /* without a view, it goes back at once */
    return view;
}

static Py_ssize_t
block_length(BlockObject *self)
{
    return self->size;
}

static PyType_Slot block_slots[] = {
    {Py_tp_doc, "Bytes that are either idle or checked out."},
    {Py_tp_dealloc, block_dealloc},
    {Py_sq_length, block_length},
    {Py_bf_getbuffer, block_getbuffer},
    {0, NULL},
};

/* Not known to the collector: see above. */
static PyType_Spec block_spec = {
    "aiopool._native._extension.Block", sizeof(BlockObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, block_slots,
};

/* --- SizeClass --- */

static PyObject *
size_class_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"size", "store", "budget", "wipe", NULL};
    State *state = state_of(type);
    Py_ssize_t size;
    PyObject *store, *budget;
    int wipe;
    if (state == NULL
        || !PyArg_ParseTupleAndKeywords(args, kwargs, "nO!O!p:SizeClass", names, &size, state->store_type, &store,
                                        state->budget_type, &budget, &wipe)) {
        return NULL;
    }
    if (size < 0) {
        return PyErr_Format(PyExc_ValueError, "size must not be negative, but is %zd", size);
    }
    SizeClassObject *self = (SizeClassObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->size = size;
    self->store = (StoreObject *)Py_NewRef(store);
    self->budget = (BudgetObject *)Py_NewRef(budget);
    self->wipe = (char)wipe;
    if (!keep_module(type, &self->module, &self->state)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
size_class_dealloc(SizeClassObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF((PyObject *)self->store);
    Py_XDECREF((PyObject *)self->budget);
    per_processor_free(&self->in_use);
    Py_XDECREF(self->module);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Free what is idle. Never raises. */
static void
size_class_empty(SizeClassObject *self)
{
    ShardsObject *retired[2];
    if (!store_take_out(self->store, retired)) {
        PyErr_Clear(); /* without memory it stays, until the next block comes back */
        return;
    }
    PyObject *processors = self->state->processors == NULL ? NULL : PyObject_CallNoArgs(self->state->processors);
    if (processors != NULL && PyList_CheckExact(processors)) {
        wait_for_busy(self->state, processors);
    }
    PyErr_Clear();
    Py_XDECREF(processors);
    Py_XDECREF((PyObject *)retired[0]);
    Py_XDECREF((PyObject *)retired[1]);
}

/* For good. */
static void
size_class_close(SizeClassObject *self)
{
    if (!self->closed) {
        self->closed = 1;
        size_class_empty(self);
    }
}

/* A view of n bytes over an idle block or a new one; n fits. */
static PyObject *
size_class_acquire_slow(SizeClassObject *self, Py_ssize_t n)
{
    StoreObject *store = self->store;
    Runner runner;
    if (!store_pin(store, &runner)) {
        return NULL;
    }
    PyObject *found = store_take_as(store, runner);
    if (found != NULL && !block_is_right(found, self)) {
        return NULL;
    }
    BlockObject *block = (BlockObject *)found;
    if (block == NULL && !PyErr_Occurred()) {
        block = block_make(self, self->size == 0 ? n : self->size);
        if (block != NULL && !store_count(store, runner, offsetof(CountersObject, created), 1)) {
            Py_CLEAR(block);
        }
    }
    if (block != NULL && !store_count(store, runner, offsetof(CountersObject, asked), n)) {
        Py_CLEAR(block);
    }
    return block == NULL ? NULL : block_check_out(block, runner.processor, n);
}

static PyObject *
size_class_acquire(SizeClassObject *self, PyObject *arg)
{
    Py_ssize_t n = PyLong_AsSsize_t(arg);
    if (n == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (n < 0 || (self->size != 0 && n > self->size)) {
        return PyErr_Format(PyExc_ValueError, "cannot acquire %zd bytes of blocks of %zd", n, self->size);
    }
    return size_class_acquire_slow(self, n);
}

/* The usual case: a block that lies where this thread looks first. NULL: the slow path must see to it. */
static inline PyObject *
size_class_acquire_own(SizeClassObject *self, IdentityObject *processor, Py_ssize_t n)
{
    StoreObject *store = self->store;
    CountersObject *counters;
    busy_begin(processor);
    PyObject *block = take_own(store, processor, &counters);
    if (block != NULL) {
        count_add(&counters->asked, n);
    }
    busy_end(processor);
    if (block == NULL || !block_is_right(block, self)) {
        return NULL;
    }
    return block_check_out((BlockObject *)block, processor, n);
}

static PyObject *
size_class_bytes_in_use(SizeClassObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLongLong(per_processor_sum(&self->in_use));
}

static PyMethodDef size_class_methods[] = {
    {"acquire", (PyCFunction)size_class_acquire, METH_O, "A view, over an idle block or a new one."},
    {"bytes_in_use", (PyCFunction)size_class_bytes_in_use, METH_NOARGS, "Bytes of the blocks that are checked out."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef size_class_members[] = {
    {"size", T_PYSSIZET, offsetof(SizeClassObject, size), READONLY, NULL},
    {"store", T_OBJECT, offsetof(SizeClassObject, store), READONLY, NULL},
    {"budget", T_OBJECT, offsetof(SizeClassObject, budget), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot size_class_slots[] = {
    {Py_tp_doc, "Blocks of one size, and what was done with them."},
    {Py_tp_new, size_class_new},
    {Py_tp_dealloc, size_class_dealloc},
    {Py_tp_methods, size_class_methods},
    {Py_tp_members, size_class_members},
    {0, NULL},
};

static PyType_Spec size_class_spec = {
    "aiopool._native._extension.SizeClass", sizeof(SizeClassObject), 0, Py_TPFLAGS_DEFAULT, size_class_slots,
};
