/* The type of a receive buffer. Each method does the same as its namesake in streams/_receive_buffer.py. */

#pragma once

#include "receive_buffer.h"

static bool
is_there(ReceiveBufferObject *self, Py_ssize_t n)
{
    if (n >= 0 && n <= self->unread) {
        return true;
    }
    if (!PyErr_Occurred()) {
        PyErr_Format(PyExc_ValueError, "there are %zd unread bytes, not %zd", self->unread, n);
    }
    return false;
}

static PyObject *
method_room(ReceiveBufferObject *self, PyObject *args)
{
    Py_ssize_t known = 0;
    PyObject *room = NULL;
    if (PyArg_ParseTuple(args, "|n:room", &known)) {
        Py_BEGIN_CRITICAL_SECTION(self);
        room = receive_room(self, known, PY_SSIZE_T_MAX);
        Py_END_CRITICAL_SECTION();
    }
    return room;
}

static PyObject *
method_release_room(ReceiveBufferObject *self, PyObject *Py_UNUSED(ignored))
{
    Py_BEGIN_CRITICAL_SECTION(self);
    Py_CLEAR(self->offered);
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static PyObject *
method_received(ReceiveBufferObject *self, PyObject *arg)
{
    Py_ssize_t nbytes = PyLong_AsSsize_t(arg);
    if (nbytes == -1 && PyErr_Occurred()) {
        return NULL;
    }
    int failed;
    Py_BEGIN_CRITICAL_SECTION(self);
    failed = receive_received(self, nbytes);
    Py_END_CRITICAL_SECTION();
    return failed ? NULL : Py_NewRef(Py_None);
}

static PyObject *
method_hold_little(ReceiveBufferObject *self, PyObject *Py_UNUSED(ignored))
{
    int failed;
    Py_BEGIN_CRITICAL_SECTION(self);
    failed = hold_little(self);
    Py_END_CRITICAL_SECTION();
    return failed ? NULL : Py_NewRef(Py_None);
}

static PyObject *
method_in_a_row(ReceiveBufferObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSsize_t(self->end - self->start);
}

static PyObject *
method_take(ReceiveBufferObject *self, PyObject *arg)
{
    Py_ssize_t n = PyLong_AsSsize_t(arg);
    PyObject *taken = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    taken = is_there(self, n) ? receive_take(self, n) : NULL;
    Py_END_CRITICAL_SECTION();
    return taken;
}

static PyObject *
method_take_bytes(ReceiveBufferObject *self, PyObject *arg)
{
    Py_ssize_t n = PyLong_AsSsize_t(arg);
    PyObject *taken = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    taken = is_there(self, n) ? receive_take_bytes(self, n) : NULL;
    Py_END_CRITICAL_SECTION();
    return taken;
}

static PyObject *
method_peek(ReceiveBufferObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *copy;
    Py_BEGIN_CRITICAL_SECTION(self);
    copy = PyBytes_FromStringAndSize(NULL, self->unread);
    if (copy != NULL) {
        copy_out(self, PyBytes_AS_STRING(copy), self->unread);
    }
    Py_END_CRITICAL_SECTION();
    return copy;
}

static PyObject *
method_skip(ReceiveBufferObject *self, PyObject *arg)
{
    Py_ssize_t n = PyLong_AsSsize_t(arg);
    bool right;
    Py_BEGIN_CRITICAL_SECTION(self);
    right = is_there(self, n);
    if (right) {
        receive_skip(self, n);
    }
    Py_END_CRITICAL_SECTION();
    return right ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
method_find(ReceiveBufferObject *self, PyObject *args)
{
    PyObject *separators, *found = NULL;
    Py_ssize_t searched;
    if (!PyArg_ParseTuple(args, "O!n:find", &PyList_Type, &separators, &searched)) {
        return NULL;
    }
    bool right = searched >= 0 && PyList_GET_SIZE(separators) > 0;
    for (Py_ssize_t i = 0; right && i < PyList_GET_SIZE(separators); i++) {
        PyObject *separator = PyList_GET_ITEM(separators, i);
        right = PyBytes_CheckExact(separator) && PyBytes_GET_SIZE(separator) > 0;
    }
    if (!right) {
        return PyErr_Format(PyExc_TypeError, "find takes a list of bytes objects that are not empty, not %.80R", args);
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    found = receive_find(self, separators, searched);
    Py_END_CRITICAL_SECTION();
    return found;
}

static int
receive_clear(ReceiveBufferObject *self)
{
    self->start = self->end = self->filled = self->needed = self->unread = 0;
    Py_CLEAR(self->chunk);
    Py_CLEAR(self->later);
    Py_CLEAR(self->offered);
    return 0;
}

static PyObject *
method_clear(ReceiveBufferObject *self, PyObject *Py_UNUSED(ignored))
{
    Py_BEGIN_CRITICAL_SECTION(self);
    receive_clear(self);
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static PyObject *
receive_buffer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"buffers", NULL};
    State *state = PyType_GetModuleState(type);
    PyObject *buffers;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!:ReceiveBuffer", names, state->buffers_type, &buffers)) {
        return NULL;
    }
    ReceiveBufferObject *self = (ReceiveBufferObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->buffers = Py_NewRef(buffers);
        self->size = state->sizes.first;
    }
    return (PyObject *)self;
}

static int
receive_buffer_traverse(ReceiveBufferObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->buffers);
    Py_VISIT(self->chunk);
    Py_VISIT(self->later);
    Py_VISIT(self->offered);
    return 0;
}

static void
receive_buffer_dealloc(ReceiveBufferObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    receive_clear(self);
    Py_XDECREF(self->buffers);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef receive_buffer_methods[] = {
    {"room", (PyCFunction)method_room, METH_VARARGS, "Return a view to write the next bytes to."},
    {"release_room", (PyCFunction)method_release_room, METH_NOARGS, "Release the room, to which nothing was written."},
    {"received", (PyCFunction)method_received, METH_O, "Note that nbytes were written to the room."},
    {"hold_little", (PyCFunction)method_hold_little, METH_NOARGS, "Hold no large chunk for a few bytes."},
    {"in_a_row", (PyCFunction)method_in_a_row, METH_NOARGS, "How many bytes can be taken without a copy."},
    {"take", (PyCFunction)method_take, METH_O, "Take the first n unread bytes, as a view."},
    {"take_bytes", (PyCFunction)method_take_bytes, METH_O, "Take the first n unread bytes, as a copy."},
    {"peek", (PyCFunction)method_peek, METH_NOARGS, "Return a copy of all unread bytes, without taking them."},
    {"skip", (PyCFunction)method_skip, METH_O, "Drop the first n unread bytes."},
    {"find", (PyCFunction)method_find, METH_VARARGS, "Find the separator that ends first: the range of its bytes."},
    {"clear", (PyCFunction)method_clear, METH_NOARGS, "Drop everything."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef receive_buffer_members[] = {
    {"needed", T_PYSSIZET, offsetof(ReceiveBufferObject, needed), 0, NULL},
    {"unread", T_PYSSIZET, offsetof(ReceiveBufferObject, unread), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot receive_buffer_slots[] = {
    {Py_tp_doc, "Received bytes, in order."},
    {Py_tp_new, receive_buffer_new},
    {Py_tp_dealloc, receive_buffer_dealloc},
    {Py_tp_traverse, receive_buffer_traverse},
    {Py_tp_clear, receive_clear},
    {Py_tp_methods, receive_buffer_methods},
    {Py_tp_members, receive_buffer_members},
    {0, NULL},
};

static PyType_Spec receive_buffer_spec = {
    "aiopool._native._extension.ReceiveBuffer", sizeof(ReceiveBufferObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, receive_buffer_slots,
};

/* Set the sizes, which are defined in _receive_buffer.py: pinned, first, most, big, room. */
static PyObject *
set_receive_sizes(PyObject *module, PyObject *args)
{
    Sizes given;
    if (!PyArg_ParseTuple(args, "nnnnn:set_receive_sizes", &given.pinned, &given.first, &given.most, &given.big,
                          &given.room)) {
        return NULL;
    }
    if (given.pinned < 1 || given.first < 1 || given.most < 1 || given.big < 1 || given.room < 1) {
        return PyErr_Format(PyExc_ValueError, "the sizes must be positive, and are %.80R", args);
    }
    ((State *)PyModule_GetState(module))->sizes = given;
    Py_RETURN_NONE;
}
