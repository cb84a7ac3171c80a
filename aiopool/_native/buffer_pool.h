/* The C version of _buffer_pool.py: acquire.

   To find the size class for n bytes, the number of bits in n gives the first candidate; it is that one or one of the
   next few. */

#pragma once

#include "size_class.h"

typedef struct {
    PyObject_HEAD
    PyObject *module;
    State *state;
    PyObject *size_classes; /* a tuple, the smallest first; NULL before it is set */
    Py_ssize_t largest;     /* bytes of the largest block */
    Py_ssize_t *sizes;      /* the size of each class's blocks */
    unsigned short first[8 * sizeof(Py_ssize_t)]; /* by number of bits: the first class whose size has that many */
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
    defer_reference_counting((PyObject *)self);
    return (PyObject *)self;
}

static int
buffers_traverse(BuffersObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    Py_VISIT(self->size_classes);
    return 0;
}

/* The pool is being freed: free the idle blocks, and keep none from now on. */
static void
buffers_close(BuffersObject *self)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    for (Py_ssize_t i = 0; self->size_classes != NULL && i < PyTuple_GET_SIZE(self->size_classes); i++) {
        size_class_close((SizeClassObject *)PyTuple_GET_ITEM(self->size_classes, i));
    }
    PyErr_Restore(type, error, traceback);
}

static void
buffers_dealloc(BuffersObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    buffers_close(self); /* needed if a subclass has its own finalizer, which ran instead of ours */
    Py_XDECREF(self->size_classes);
    PyMem_Free(self->sizes);
    Py_XDECREF(self->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
buffers_get_size_classes(BuffersObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->size_classes == NULL ? Py_None : self->size_classes);
}

static int
bits_of(Py_ssize_t n)
{
#if defined(__GNUC__) || defined(__clang__)
    return n == 0 ? 0 : 8 * (int)sizeof(long long) - __builtin_clzll((unsigned long long)n);
#else
    int bits = 0;
    for (; n > 0; n >>= 1) {
        bits++;
    }
    return bits;
#endif
}

/* Returns false, with an exception set, if there is no memory or the sizes do not ascend. */
static bool
set_sizes(BuffersObject *self, PyObject *size_classes)
{
    Py_ssize_t count = PyTuple_GET_SIZE(size_classes), before = 0;
    Py_ssize_t *sizes = PyMem_New(Py_ssize_t, (size_t)count);
    if (sizes == NULL) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        sizes[i] = ((SizeClassObject *)PyTuple_GET_ITEM(size_classes, i))->size;
        if (sizes[i] <= before) {
            PyErr_SetString(PyExc_ValueError, "the sizes must ascend from class to class");
            PyMem_Free(sizes);
            return false;
        }
        before = sizes[i];
    }
    int bits = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        for (; bits <= bits_of(sizes[i]); bits++) {
            self->first[bits] = (unsigned short)i;
        }
    }
    self->sizes = sizes;
    self->largest = before;
    return true;
}

static int
buffers_set_size_classes(BuffersObject *self, PyObject *given, void *Py_UNUSED(closure))
{
    bool right = given != NULL && self->size_classes == NULL && PyTuple_CheckExact(given) && PyTuple_GET_SIZE(given) > 0
                 && PyTuple_GET_SIZE(given) <= USHRT_MAX;
    for (Py_ssize_t i = 0; right && i < PyTuple_GET_SIZE(given); i++) {
        right = Py_IS_TYPE(PyTuple_GET_ITEM(given, i), self->state->size_class_type);
    }
    if (!right) {
        PyErr_SetString(PyExc_TypeError, "the size classes must be a tuple, and can be set only once");
        return -1;
    }
    if (!set_sizes(self, given)) {
        return -1;
    }
    self->size_classes = Py_NewRef(given);
    return 0;
}

static SizeClassObject *
buffers_size_class(BuffersObject *self, Py_ssize_t n)
{
    Py_ssize_t index = self->first[bits_of(n)];
    while (self->sizes[index] < n) {
        index++;
    }
    return (SizeClassObject *)PyTuple_GET_ITEM(self->size_classes, index);
}

/* Out of line, so that the fast path stays short. */
static OUT_OF_LINE PyObject *
buffers_acquire_slow(BuffersObject *self, PyObject *arg, Py_ssize_t n)
{
    if (n >= 0 && n <= self->largest) {
        PyObject *view = size_class_acquire_slow(buffers_size_class(self, n), n);
        if (view != NULL || !PyErr_ExceptionMatches(PyExc_MemoryError)) {
            return view;
        }
    }
    PyErr_Clear(); /* the number is too large, or there is no memory: the Python method raises a better message */
    return PyObject_CallMethodOneArg((PyObject *)self, self->state->acquire_slow, arg);
}

static PyObject *
buffers_acquire(BuffersObject *self, PyObject *arg)
{
    Py_ssize_t n = PyLong_CheckExact(arg) ? PyLong_AsSsize_t(arg) : -1;
    IdentityObject *processor = n >= 0 && n <= self->largest ? pin(self->state) : NULL;
    if (processor != NULL) {
        PyObject *view = size_class_acquire_own(buffers_size_class(self, n), processor, n);
        if (view != NULL || PyErr_Occurred()) {
            return view;
        }
    }
    return buffers_acquire_slow(self, arg, n);
}

static PyMethodDef buffers_methods[] = {
    {"acquire", (PyCFunction)buffers_acquire, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef buffers_getset[] = {
    {"_size_classes", (getter)buffers_get_size_classes, (setter)buffers_set_size_classes, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot buffers_slots[] = {
    {Py_tp_doc, "The data that acquire uses."},
    {Py_tp_new, buffers_new},
    {Py_tp_finalize, buffers_close},
    {Py_tp_dealloc, buffers_dealloc},
    {Py_tp_traverse, buffers_traverse},
    {Py_tp_getset, buffers_getset},
    {0, NULL},
};

static PyType_Spec buffers_spec = {
    "aiopool._native._extension.BufferPoolBase", sizeof(BuffersObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, buffers_slots,
};
