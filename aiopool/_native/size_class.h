/* The C version of _core/size_class.py: blocks of one size, and the put that happens when the last view is gone.

   A block holds a reference to its size class, and so to the store, so that neither is freed while another thread puts
   there. A pool that is freed closes its size classes. From then on, blocks that come back are freed. */

#pragma once

#include "displacement.h"

/* --- a block comes back --- */

/* private slot if free → own shared list; otherwise the slow path. Steals the only reference to the block. As soon as
   the block is idle another thread may take it, so it must not be touched any more. */
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
    /* During interpreter shutdown, the Python code that this may call may be gone already, and nothing is acquired any
       more. */
    if (!is_finalizing()) {
        Runner runner;
        if (!store_pin(store, &runner) || store_keep_as(store, runner, block) < 0) {
            if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
                PyErr_Clear(); /* the block is just not kept */
            }
            else {
                PyErr_WriteUnraisable((PyObject *)store);
            }
        }
        if (size_class->closed) {
            empty_store(size_class->store); /* closed meanwhile, and nothing else would free the block */
        }
    }
    Py_DECREF(block); /* if it was not kept, this frees it and gives its bytes back to the budget */
}

/* Count a block that came back and for which there is no room. */
static OUT_OF_LINE void
count_rejected(StoreObject *store, IdentityObject *processor)
{
    Runner runner = {processor, processor == NULL ? 0 : processor->id};
    if (processor == NULL && is_finalizing()) {
        return; /* as in block_put */
    }
    if ((processor == NULL && !store_pin(store, &runner)) || !store_reject_as(store, runner)) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
            PyErr_Clear(); /* no memory to count it: only this count is wrong */
        }
        else {
            PyErr_WriteUnraisable((PyObject *)store);
        }
    }
}

/* Put the block back into its store, if it may be kept. If this returns true, the block is alive again, and the caller
   must not touch it. */
static bool
block_put_itself(BlockObject *self, IdentityObject *processor)
{
    SizeClassObject *size_class = self->size_class;
    BudgetObject *budget = size_class->budget;
    if (size_class->size == 0 || size_class->closed) {
        return false;
    }
    if (!budget_reserve(budget, processor, self->size)
        && !budget_reserve_displacing(budget, size_class->store, processor, self->size)) {
        count_rejected(size_class->store, processor);
        return false;
    }
    self->idle = 1;
    self->idle_since = budget->now;
    _Py_NewReference((PyObject *)self);
    belong_to_no_thread((PyObject *)self);
    block_put(size_class, processor, (PyObject *)self);
    return true;
}

/* Remove its record of where it was acquired. */
static OUT_OF_LINE void
block_forget_holder(BlockObject *self)
{
    PyObject *key = self->holder;
    self->holder = NULL;
    if (PyDict_DelItem(self->size_class->holders, key) < 0) {
        PyErr_Clear(); /* Python code removed it from the dict */
    }
    Py_DECREF(key);
}

static bool
block_return(BlockObject *self)
{
    IdentityObject *processor = pin(self->size_class->state);
    self->checked_out = 0;
    per_processor_add(&self->size_class->in_use, processor, -(long long)self->size);
    budget_count_back(self->size_class->budget, processor, self->size);
    if (self->holder != NULL) {
        block_forget_holder(self);
    }
    if (self->size_class->wipe) {
        memset(self->bytes, 0, (size_t)self->length);
    }
    return block_put_itself(self, processor);
}

/* Called when the last view is gone. Returns whether the block is alive again. */
static bool
block_come_back(BlockObject *self)
{
    if (PyErr_Occurred() == NULL) {
        return block_return(self);
    }
    PyObject *type, *error, *traceback; /* the code that dropped the last view is just raising an exception */
    PyErr_Fetch(&type, &error, &traceback);
    bool lives = block_return(self); /* its pin may run code that clears an exception */
    PyErr_Restore(type, error, traceback);
    return lives;
}

/* --- a block is checked out --- */

/* Whether object, which was taken from the store of size_class, is an idle block of it. If not, raises an exception and
   drops the object: Python code that finds the store can put anything there. */
static inline bool
block_is_right(PyObject *object, SizeClassObject *size_class)
{
    BlockObject *block = (BlockObject *)object;
    if (Py_IS_TYPE(object, size_class->state->block_type) && block->size_class == size_class && block->idle) {
        return true;
    }
    PyErr_SetString(PyExc_TypeError, "the store of a size class held an object that is not an idle block of it");
    Py_DECREF(object);
    return false;
}

/* Return a view of the first n bytes. Steals the reference. */
static PyObject *
block_check_out(BlockObject *self, IdentityObject *processor, Py_ssize_t n)
{
    SizeClassObject *size_class = self->size_class;
    if (self->idle) { /* it is not new */
        self->idle = 0;
        budget_give_back(size_class->budget, processor, self->size);
    }
    self->checked_out = 1;
    self->length = n;
    per_processor_add(&size_class->in_use, processor, self->size);
    budget_count_checked_out(size_class->budget, processor, self->size);
    PyObject *view = PyMemoryView_FromObject((PyObject *)self);
    Py_DECREF(self); /* if there is no view, this puts it back at once */
    return view;
}

/* Record where the view was acquired, for holders(); the record stands for stands_for acquires. Runs Python code.
   Steals the reference to the view and returns it; NULL if the view is NULL or an exception was raised. */
static OUT_OF_LINE PyObject *
record_holder(PyObject *view, long long stands_for)
{
    if (view == NULL) {
        return NULL;
    }
    BlockObject *block = (BlockObject *)PyMemoryView_GET_BUFFER(view)->obj;
    SizeClassObject *size_class = block->size_class;
    PyObject *key = PyLong_FromVoidPtr(block);
    PyObject *recorded
        = key == NULL ? NULL : PyObject_CallFunction(size_class->state->record_holder, "nL", block->size, stands_for);
    if (recorded != NULL && PyDict_SetItem(size_class->holders, key, recorded) == 0) {
        block->holder = Py_NewRef(key);
    }
    Py_XDECREF(recorded);
    Py_XDECREF(key);
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
            Py_DECREF(view);
            return NULL;
        }
        PyErr_Clear(); /* the view exists, and a missing sample does no harm */
    }
    return view;
}

/* --- the size class --- */

static PyObject *
size_class_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"size", "store", "budget", "wipe", "sample_every", NULL};
    State *state = state_of(type);
    Py_ssize_t size;
    long long sample_every;
    PyObject *store, *budget;
    int wipe;
    if (state == NULL
        || !PyArg_ParseTupleAndKeywords(args, kwargs, "nO!O!pL:SizeClass", names, &size, state->store_type, &store,
                                        state->budget_type, &budget, &wipe, &sample_every)) {
        return NULL;
    }
    if (size < 0) {
        return PyErr_Format(PyExc_ValueError, "size must not be negative, but is %zd", size);
    }
    if (sample_every < 0 || (sample_every & (sample_every - 1)) != 0) {
        return PyErr_Format(PyExc_ValueError, "sample_every must be 0 or a power of two, but is %lld", sample_every);
    }
    SizeClassObject *self = (SizeClassObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->size = size;
    self->store = (StoreObject *)Py_NewRef(store);
    self->budget = (BudgetObject *)Py_NewRef(budget);
    self->wipe = (char)wipe;
    self->sample_bits = sample_every == 0 ? LLONG_MAX : sample_every - 1;
    self->holders = PyDict_New();
    if (self->holders == NULL || !keep_module(type, &self->module, &self->state)) {
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
    Py_XDECREF(self->holders);
    per_processor_free(&self->in_use);
    Py_XDECREF(self->module);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Free the idle blocks, and keep no block from now on. */
static void
size_class_close(SizeClassObject *self)
{
    if (!self->closed) {
        self->closed = 1;
        empty_store(self->store);
    }
}

/* The slow path records SLOW_PATH_SAMPLES times as many of its acquires as the fast path, because a pool grows here,
   and a record is cheap compared to a new block. */
enum { SLOW_PATH_SAMPLES = 16 };

/* How many acquires a record of this one stands for; 0 if it is not recorded. */
static long long
slow_path_stands_for(SizeClassObject *self, CountersObject *counters)
{
    if (self->store->observed) {
        return 1; /* the debug mode is on */
    }
    long long slow = count_read(&counters->misses) + count_read(&counters->stolen) + count_read(&counters->victim);
    long long bits = self->sample_bits == LLONG_MAX ? LLONG_MAX : self->sample_bits / SLOW_PATH_SAMPLES;
    return (slow & bits) == 0 ? bits + 1 : 0;
}

/* Return a view of n bytes, which fit, over an idle block or a new one. */
static PyObject *
size_class_acquire_slow(SizeClassObject *self, Py_ssize_t n)
{
    StoreObject *store = self->store;
    Runner runner;
    if (!store_pin(store, &runner)) {
        return NULL;
    }
    if (!per_processor_reserve(&self->in_use, runner.processor)
        || !per_processor_reserve(&self->budget->in_use, runner.processor)) {
        return PyErr_NoMemory(); /* raised now, because a block that is checked out must be counted */
    }
    CountersObject *counters = store_counters(store, runner);
    if (counters == NULL) {
        return NULL;
    }
    store_enter(store, runner);
    PyObject *found = store_find(store, runner, counters);
    store_leave(store, runner);
    BlockObject *block = (BlockObject *)found;
    if (found != NULL ? !block_is_right(found, self)
                      : (block = block_make(self, self->size == 0 ? n : self->size)) == NULL) {
        Py_DECREF(counters);
        return NULL;
    }
    store_enter(store, runner); /* because all off-loop threads share one set of counters */
    count_add(&counters->created, found == NULL);
    count_add(&counters->asked, n);
    store_leave(store, runner);
    long long stands_for = slow_path_stands_for(self, counters);
    Py_DECREF(counters);
    PyObject *view = block_check_out(block, runner.processor, n);
#ifdef Py_GIL_DISABLED
    budget_look_for_peak(self->budget);
#endif
    return stands_for == 0 ? view : record_holder(view, stands_for);
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

/* The usual case: a block from the processor's own shard. Returns NULL without an exception if the slow path must
   acquire. */
static inline PyObject *
size_class_acquire_own(SizeClassObject *self, IdentityObject *processor, Py_ssize_t n)
{
    StoreObject *store = self->store;
    CountersObject *counters;
    busy_begin(processor);
    bool sampled = false;
    PyObject *block = take_own(store, processor, &counters);
    if (block != NULL) {
        count_add(&counters->asked, n);
        sampled = ((count_read(&counters->private_hits) + count_read(&counters->shared)) & self->sample_bits) == 0;
    }
    busy_end(processor);
    if (block == NULL || !block_is_right(block, self)) {
        return NULL;
    }
    PyObject *view = block_check_out((BlockObject *)block, processor, n);
    return sampled ? record_holder(view, self->sample_bits + 1) : view;
}

static PyObject *
size_class_bytes_in_use(SizeClassObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLongLong(per_processor_sum(&self->in_use));
}

static PyObject *
size_class_get_displaced(SizeClassObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(count_read(&self->displaced));
}

static PyMethodDef size_class_methods[] = {
    {"acquire", (PyCFunction)size_class_acquire, METH_O, "Return a view, over an idle block or a new one."},
    {"bytes_in_use", (PyCFunction)size_class_bytes_in_use, METH_NOARGS,
     "The total size of the blocks that are checked out."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef size_class_members[] = {
    {"size", T_PYSSIZET, offsetof(SizeClassObject, size), READONLY, NULL},
    {"store", T_OBJECT, offsetof(SizeClassObject, store), READONLY, NULL},
    {"budget", T_OBJECT, offsetof(SizeClassObject, budget), READONLY, NULL},
    {"holders", T_OBJECT, offsetof(SizeClassObject, holders), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef size_class_getset[] = {
    {"displaced", (getter)size_class_get_displaced, NULL, "How many idle blocks were freed to make room for others.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot size_class_slots[] = {
    {Py_tp_doc, "Blocks of one size, and their statistics."},
    {Py_tp_new, size_class_new},
    {Py_tp_dealloc, size_class_dealloc},
    {Py_tp_methods, size_class_methods},
    {Py_tp_members, size_class_members},
    {Py_tp_getset, size_class_getset},
    {0, NULL},
};

static PyType_Spec size_class_spec = {
    "aiopool._native._extension.SizeClass", sizeof(SizeClassObject), 0, Py_TPFLAGS_DEFAULT, size_class_slots,
};
