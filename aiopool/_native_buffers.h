/* The twin of _storage.py, and of acquire in buffers.py.

   The storage is its own exporter: CPython holds a reference to it for as long as any view over it lives. When the last
   is gone it would die, and instead it puts itself back. No collection ever ends a life early, for the collector does
   not know these objects; and it need not: nothing that they hold leads back to them. */

#pragma once

#include "_native_pool.h"

/* --- Ledger and SizeClass: what is counted --- */

typedef struct {
    PyObject_HEAD
    Number idle; /* bytes */
    Number limit;
} LedgerObject;

typedef struct {
    PyObject_HEAD
    LedgerObject *ledger;
    PyObject *shelf; /* a weak reference to a pool; NULL: the storage is not kept */
    Number served;
    Number asked; /* bytes, so far */
    Number in_use; /* bytes, now */
    char wipe;
} SizeClassObject;

/* Count more idle bytes, if there may be so many. */
static bool
ledger_admit(LedgerObject *ledger, uint64_t size)
{
    uint64_t idle = ledger->idle;
    do {
        if (idle + size > ledger->limit) {
            return false;
        }
    } while (!number_exchange(&ledger->idle, &idle, idle + size));
    return true;
}

static PyObject *
ledger_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"limit", NULL};
    PyObject *limit;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!:Ledger", names, &PyLong_Type, &limit)) {
        return NULL;
    }
    LedgerObject *self = (LedgerObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->limit = PyLong_AsUnsignedLongLong(limit);
    if (PyErr_Occurred()) {
        PyErr_Clear(); /* more than there can be */
        self->limit = INT64_MAX;
    }
    return (PyObject *)self;
}

static void
ledger_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
ledger_close(LedgerObject *self, PyObject *Py_UNUSED(ignored))
{
    self->limit = 0;
    Py_RETURN_NONE;
}

static PyMethodDef ledger_methods[] = {
    {"close", (PyCFunction)ledger_close, METH_NOARGS, "From now on nothing is kept."},
    {NULL, NULL, 0, NULL},
};

static PyObject *
ledger_get_idle(LedgerObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->idle);
}

static PyGetSetDef ledger_getset[] = {
    {"idle", (getter)ledger_get_idle, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ledger_slots[] = {
    {Py_tp_doc, "The idle bytes of one pool, over all its size classes and all loops."},
    {Py_tp_new, ledger_new},
    {Py_tp_dealloc, ledger_dealloc},
    {Py_tp_methods, ledger_methods},
    {Py_tp_getset, ledger_getset},
    {0, NULL},
};

static PyType_Spec ledger_spec = {
    "aiopool._native.Ledger", sizeof(LedgerObject), 0, Py_TPFLAGS_DEFAULT, ledger_slots,
};

static PyObject *
size_class_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ledger", "wipe", NULL};
    State *state = state_of(type);
    PyObject *ledger;
    int wipe = 0;
    if (state == NULL
        || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!|$p:SizeClass", names, state->ledger_type, &ledger, &wipe)) {
        return NULL;
    }
    SizeClassObject *self = (SizeClassObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->ledger = (LedgerObject *)Py_NewRef(ledger);
        self->wipe = (char)wipe;
    }
    return (PyObject *)self;
}

static void
size_class_dealloc(SizeClassObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->ledger);
    Py_XDECREF(self->shelf);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
size_class_get_shelf(SizeClassObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->shelf == NULL ? Py_None : self->shelf);
}

/* A new reference; NULL: there is none, or it has gone. */
static PyObject *
referent(PyObject *reference)
{
#if PY_VERSION_HEX >= 0x030d0000
    PyObject *object;
    PyWeakref_GetRef(reference, &object);
    return object;
#else
    PyObject *object = PyWeakref_GET_OBJECT(reference);
    return object == Py_None ? NULL : Py_NewRef(object);
#endif
}

static int
size_class_set_shelf(SizeClassObject *self, PyObject *shelf, void *Py_UNUSED(closure))
{
    State *state = state_of(Py_TYPE(self));
    PyObject *pool = shelf == NULL || !PyWeakref_CheckRef(shelf) ? NULL : referent(shelf);
    bool right = state != NULL && self->shelf == NULL && pool != NULL && PyObject_TypeCheck(pool, state->pool_type);
    Py_XDECREF(pool);
    if (!right) {
        PyErr_SetString(PyExc_TypeError, "the shelf is a weak reference to a pool, set once");
        return -1;
    }
    self->shelf = Py_NewRef(shelf);
    return 0;
}

static PyObject *
size_class_get_served(SizeClassObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->served);
}

static PyObject *
size_class_get_asked(SizeClassObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->asked);
}

static PyObject *
size_class_get_in_use(SizeClassObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->in_use);
}

static PyGetSetDef size_class_getset[] = {
    {"shelf", (getter)size_class_get_shelf, (setter)size_class_set_shelf, "Where it goes, weakly; None: away.", NULL},
    {"served", (getter)size_class_get_served, NULL, "Views that were acquired so far.", NULL},
    {"asked", (getter)size_class_get_asked, NULL, "Bytes that were asked for so far.", NULL},
    {"in_use", (getter)size_class_get_in_use, NULL, "Bytes of storage that somebody may see now.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot size_class_slots[] = {
    {Py_tp_doc, "What all storage of one size has in common, and what was done with it."},
    {Py_tp_new, size_class_new},
    {Py_tp_dealloc, size_class_dealloc},
    {Py_tp_getset, size_class_getset},
    {0, NULL},
};

static PyType_Spec size_class_spec = {
    "aiopool._native.SizeClass", sizeof(SizeClassObject), 0, Py_TPFLAGS_DEFAULT, size_class_slots,
};

/* --- Storage --- */

typedef struct {
    PyObject_HEAD
    SizeClassObject *size_class;
    char *bytes;
    Py_ssize_t size;
    Py_ssize_t length; /* of the view, while lent */
    char idle;
    char lent;
} StorageObject;

/* Without a GIL a reference belongs to the thread that made the object, and when another one drops the last, CPython
   leaves the object to its thread, which may be asleep. Storage goes from thread to thread, so it belongs to none. */
static void
belong_to_nobody(PyObject *storage)
{
#ifdef Py_GIL_DISABLED
    storage->ob_tid = 0;
    Py_SET_REFCNT(storage, 1);
#else
    (void)storage;
#endif
}

static PyObject *
storage_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"size_class", "size", NULL};
    State *state = state_of(type);
    PyObject *size_class;
    Py_ssize_t size;
    if (state == NULL
        || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!n:Storage", names, state->size_class_type, &size_class,
                                        &size)) {
        return NULL;
    }
    StorageObject *self = (StorageObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    belong_to_nobody((PyObject *)self);
    self->size_class = (SizeClassObject *)Py_NewRef(size_class);
    self->bytes = PyMem_RawCalloc(1, (size_t)size);
    if (self->bytes == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->size = size;
    return (PyObject *)self;
}

/* private if it is free → own shared; else as the slow path says. Takes over the only reference there is: from the
   moment that the storage is on the shelf another thread may have it, and it is not touched any more. */
static void
put_on_shelf(PoolObject *shelf, PyObject *storage)
{
    IdentityObject *processor = pin(shelf->state);
    if (processor != NULL) {
        busy_begin(processor);
        bool kept = keep_own(shelf, processor, storage);
        busy_end(processor);
        if (kept) {
            return;
        }
    }
    /* While the interpreter goes, the slow path's code may be gone already, and nobody is there to get anything. */
    if (!is_finalizing()) {
        PyObject *done = PyObject_CallMethodOneArg((PyObject *)shelf, shelf->state->put_slow, storage);
        if (done != NULL) {
            Py_DECREF(done);
        }
        else if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
            PyErr_Clear(); /* it just is not kept */
        }
        else {
            PyErr_WriteUnraisable((PyObject *)shelf);
        }
    }
    Py_DECREF(storage); /* if it was not kept it dies now, and is counted then */
}

/* Whether it goes back to the shelf it came from. Then it is alive again, and the caller must not touch it. */
static bool
put_itself(StorageObject *self)
{
    SizeClassObject *size_class = self->size_class;
    PyObject *shelf = size_class->shelf == NULL ? NULL : referent(size_class->shelf);
    bool admitted = shelf != NULL && ledger_admit(size_class->ledger, (uint64_t)self->size);
    if (admitted) {
        self->idle = 1;
        _Py_NewReference((PyObject *)self);
        belong_to_nobody((PyObject *)self);
        put_on_shelf((PoolObject *)shelf, (PyObject *)self);
    }
    Py_XDECREF(shelf);
    return admitted;
}

/* The put: nobody sees the bytes any more. */
static bool
give_back(StorageObject *self)
{
    self->lent = 0;
    self->size_class->in_use -= (uint64_t)self->size;
    if (self->size_class->wipe) {
        memset(self->bytes, 0, (size_t)self->length);
    }
    if (PyErr_Occurred() == NULL) {
        return put_itself(self);
    }
    PyObject *type, *error, *traceback; /* whoever let go of the last view is in the middle of raising */
    PyErr_Fetch(&type, &error, &traceback);
    bool lives = put_itself(self);
    PyErr_Restore(type, error, traceback);
    return lives;
}

static void
storage_dealloc(StorageObject *self)
{
    if (self->lent && give_back(self)) {
        return;
    }
    PyTypeObject *type = Py_TYPE(self);
    if (self->idle) {
        self->size_class->ledger->idle -= (uint64_t)self->size;
    }
    Py_XDECREF(self->size_class);
    PyMem_RawFree(self->bytes);
    type->tp_free(self);
    Py_DECREF(type);
}

static int
storage_getbuffer(StorageObject *self, Py_buffer *view, int flags)
{
    if (!self->lent) {
        view->obj = NULL;
        PyErr_SetString(PyExc_BufferError, "nobody may look at idle storage");
        return -1;
    }
    return PyBuffer_FillInfo(view, (PyObject *)self, self->bytes, self->length, 0, flags);
}

/* A view of the first n bytes. Takes over the reference. */
static PyObject *
lend(StorageObject *self, Py_ssize_t n)
{
    SizeClassObject *size_class = self->size_class;
    if (self->idle) {
        self->idle = 0;
        size_class->ledger->idle -= (uint64_t)self->size;
    }
    self->lent = 1;
    self->length = n;
    size_class->in_use += (uint64_t)self->size;
    PyObject *view = PyMemoryView_FromObject((PyObject *)self);
    if (view != NULL) {
        size_class->served++;
        size_class->asked += (uint64_t)n;
    }
    Py_DECREF(self); /* without a view, it goes back at once */
    return view;
}

static PyObject *
storage_lend(StorageObject *self, PyObject *arg)
{
    Py_ssize_t n = PyLong_AsSsize_t(arg);
    if (n == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (n < 0 || n > self->size || self->lent) {
        return PyErr_Format(PyExc_ValueError, "cannot lend %zd bytes of %zd", n, self->lent ? 0 : self->size);
    }
    return lend((StorageObject *)Py_NewRef(self), n);
}

static Py_ssize_t
storage_length(StorageObject *self)
{
    return self->size;
}

static PyMethodDef storage_methods[] = {
    {"lend", (PyCFunction)storage_lend, METH_O, "A view; once nobody sees it any more, back to the shelf."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot storage_slots[] = {
    {Py_tp_doc, "Bytes that are either idle or lent."},
    {Py_tp_new, storage_new},
    {Py_tp_dealloc, storage_dealloc},
    {Py_tp_methods, storage_methods},
    {Py_sq_length, storage_length},
    {Py_bf_getbuffer, storage_getbuffer},
    {0, NULL},
};

/* Not known to the collector: see above. */
static PyType_Spec storage_spec = {
    "aiopool._native.Storage", sizeof(StorageObject), 0, Py_TPFLAGS_DEFAULT, storage_slots,
};

/* --- Buffers: acquire --- */

typedef struct {
    PyObject_HEAD
    PyObject *module;
    State *state;
    PyObject *shelves; /* a tuple of pools; NULL before it is set */
    Py_ssize_t smallest, largest; /* bytes of storage on the first and the last */
} BuffersObject;

static PyObject *
buffers_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    BuffersObject *self = (BuffersObject *)type->tp_alloc(type, 0);
    if (self == NULL || !keep_module(type, &self->module, &self->state)) {
        Py_XDECREF(self);
        return NULL;
    }
    self->largest = -1; /* nothing can be acquired yet */
    return (PyObject *)self;
}

static int
buffers_traverse(BuffersObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    Py_VISIT(self->shelves);
    return 0;
}

static void
buffers_dealloc(BuffersObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->shelves);
    Py_XDECREF(self->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
buffers_get_shelves(BuffersObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->shelves == NULL ? Py_None : self->shelves);
}

static int
buffers_set_shelves(BuffersObject *self, PyObject *shelves, void *Py_UNUSED(closure))
{
    bool right = shelves != NULL && self->shelves == NULL && PyTuple_CheckExact(shelves) && PyTuple_GET_SIZE(shelves) > 0;
    for (Py_ssize_t i = 0; right && i < PyTuple_GET_SIZE(shelves); i++) {
        right = PyObject_TypeCheck(PyTuple_GET_ITEM(shelves, i), self->state->pool_type);
    }
    if (!right) {
        PyErr_SetString(PyExc_TypeError, "the shelves are a tuple of pools, set once");
        return -1;
    }
    Py_ssize_t sizes[2];
    for (int i = 0; i < 2; i++) {
        PyObject *shelf = PyTuple_GET_ITEM(shelves, i == 0 ? 0 : PyTuple_GET_SIZE(shelves) - 1);
        PyObject *size = PyObject_GetAttrString(shelf, "size");
        sizes[i] = size == NULL ? -1 : PyLong_AsSsize_t(size);
        Py_XDECREF(size);
        if (PyErr_Occurred()) {
            return -1;
        }
    }
    self->shelves = Py_NewRef(shelves);
    self->smallest = sizes[0];
    self->largest = sizes[1];
    return 0;
}

/* What lies idle where this thread looks first; NULL: nothing does. */
static StorageObject *
take_storage(BuffersObject *self, PoolObject *shelf)
{
    IdentityObject *processor = pin(self->state);
    if (processor == NULL) {
        return NULL;
    }
    busy_begin(processor);
    PyObject *storage = take_own(shelf, processor);
    busy_end(processor);
    return (StorageObject *)storage;
}

static PyObject *
buffers_acquire(BuffersObject *self, PyObject *arg)
{
    Py_ssize_t n = PyLong_CheckExact(arg) ? PyLong_AsSsize_t(arg) : -1;
    if (n >= 0 && n <= self->largest) {
        Py_ssize_t index = 0;
        for (size_t size = (size_t)self->smallest; size < (size_t)n; size *= 2) {
            index++;
        }
        PoolObject *shelf = (PoolObject *)PyTuple_GET_ITEM(self->shelves, index);
        StorageObject *storage = take_storage(self, shelf);
        if (storage != NULL) {
            return lend(storage, n);
        }
    }
    else if (n < 0) {
        PyErr_Clear(); /* the slow path says what is wrong */
    }
    return PyObject_CallMethodOneArg((PyObject *)self, self->state->acquire_slow, arg);
}

static PyMethodDef buffers_methods[] = {
    {"acquire", (PyCFunction)buffers_acquire, METH_O, "A view of `n` writable bytes."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef buffers_getset[] = {
    {"_shelves", (getter)buffers_get_shelves, (setter)buffers_set_shelves, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot buffers_slots[] = {
    {Py_tp_doc, "What acquire looks at."},
    {Py_tp_new, buffers_new},
    {Py_tp_dealloc, buffers_dealloc},
    {Py_tp_traverse, buffers_traverse},
    {Py_tp_getset, buffers_getset},
    {0, NULL},
};

static PyType_Spec buffers_spec = {
    "aiopool._native.Buffers", sizeof(BuffersObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, buffers_slots,
};
