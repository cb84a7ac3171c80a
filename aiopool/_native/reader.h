/* The C version of streams/_reader.py: the fields of a reader, and the methods that its transport calls for each
   receive. read.h has the reads. */

#pragma once

#include "receive_buffer_type.h"

static const char *const reader_call_names[READER_CALLS] = {
    "done", "set_result", "create_future", "call_soon", "release_room", "_pause", "_receive_now",
};

typedef struct {
    PyObject_HEAD
    ReceiveBufferObject *received; /* NULL only before __init__ */
    PyObject *loop, *waiter, *exception;
    Py_ssize_t limit, budget;
    int descriptor, leave_out, left_out;
    char paused, as_bytes, eof;
} ReaderObject;

static inline bool
is_set(PyObject *field)
{
    return field != NULL && field != Py_None;
}

/* Return a new reference to the object in a field; NULL if none is set. */
static PyObject *
held(ReaderObject *self, PyObject **field)
{
    PyObject *found;
    (void)self; /* with a GIL */
    Py_BEGIN_CRITICAL_SECTION(self);
    found = is_set(*field) ? Py_NewRef(*field) : NULL;
    Py_END_CRITICAL_SECTION();
    return found;
}

/* Return a new reference to the future of a read that waits. NULL without an exception if no read waits. */
static PyObject *
pending_waiter(ReaderObject *self, State *state)
{
    PyObject *waiter = held(self, &self->waiter);
    if (waiter == NULL) {
        return NULL;
    }
    PyObject *done = PyObject_CallMethodNoArgs(waiter, state->reader_calls[CALL_DONE]);
    int is_done = done == NULL ? -1 : PyObject_IsTrue(done);
    Py_XDECREF(done);
    if (is_done != 0) {
        Py_CLEAR(waiter);
    }
    return waiter;
}

/* Return the state of the module, or NULL with an exception. */
static State *
state_of_reader(ReaderObject *self)
{
    if (self->received == NULL) {
        PyErr_SetString(PyExc_AttributeError, "this reader has no receive buffer yet");
        return NULL;
    }
    return PyType_GetModuleState(Py_TYPE(self->received));
}

/* --- called by the transport --- */

static int
release_room_soon(ReaderObject *self, State *state)
{
    PyObject *loop = held(self, &self->loop);
    PyObject *release = PyObject_GetAttr((PyObject *)self->received, state->reader_calls[CALL_RELEASE_ROOM]);
    PyObject *handle = NULL;
    if (release != NULL) {
        handle = PyObject_CallMethodOneArg(loop == NULL ? Py_None : loop, state->reader_calls[CALL_CALL_SOON], release);
    }
    Py_XDECREF(loop);
    Py_XDECREF(release);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

static PyObject *
reader_get_buffer(ReaderObject *self, PyObject *sizehint)
{
    State *state = state_of_reader(self);
    bool in_vain, over_tls = self->descriptor == -1;
    Py_ssize_t known = state == NULL ? -1 : over_tls ? PyLong_AsSsize_t(sizehint) : 0;
    if (known == -1 && PyErr_Occurred()) {
        return NULL;
    }
    ReceiveBufferObject *buffer = self->received;
    PyObject *room;
    Py_BEGIN_CRITICAL_SECTION(buffer);
    room = receive_room(buffer, known < state->at_once ? known : state->at_once, state->at_once);
    in_vain = buffer->unread == 0 && (over_tls || self->budget < state->budget);
    Py_END_CRITICAL_SECTION();
    if (room != NULL && in_vain && release_room_soon(self, state) < 0) {
        Py_CLEAR(room);
    }
    return room;
}

static PyObject *
reader_have_more(ReaderObject *self, PyObject *Py_UNUSED(ignored))
{
    State *state = state_of_reader(self);
    if (state == NULL) {
        return NULL;
    }
    Py_ssize_t needed = self->received->needed, more = self->received->unread - needed;
    if (more < 0) {
        Py_RETURN_NONE;
    }
    bool is_much = more > self->limit && more - self->limit > self->limit;
    PyObject *waiter = pending_waiter(self, state);
    if (waiter != NULL) {
        Py_BEGIN_CRITICAL_SECTION(self);
        Py_CLEAR(self->waiter);
        Py_END_CRITICAL_SECTION();
        PyObject *woken = PyObject_CallMethodOneArg(waiter, state->reader_calls[CALL_SET_RESULT], Py_None);
        Py_DECREF(waiter);
        Py_XDECREF(woken);
        is_much = needed >= state->sizes.big;
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (is_much && !self->paused) {
        return PyObject_CallMethodNoArgs((PyObject *)self, state->reader_calls[CALL_PAUSE]);
    }
    Py_RETURN_NONE;
}

static PyObject *
reader_buffer_updated(ReaderObject *self, PyObject *arg)
{
    State *state = state_of_reader(self);
    Py_ssize_t nbytes = state == NULL ? -1 : PyLong_AsSsize_t(arg);
    if (nbytes == -1 && PyErr_Occurred()) {
        return NULL;
    }
    self->budget = state->budget;
    int failed;
    Py_BEGIN_CRITICAL_SECTION(self->received);
    failed = receive_received(self->received, nbytes);
    Py_END_CRITICAL_SECTION();
    return failed ? NULL : reader_have_more(self, NULL);
}

/* --- the type: the base of StreamReader --- */

static PyObject *
reader_get_received(ReaderObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->received == NULL ? Py_None : (PyObject *)self->received);
}

static int
reader_set_received(ReaderObject *self, PyObject *given, void *Py_UNUSED(closure))
{
    State *state = state_of(Py_TYPE(self));
    if (state == NULL) {
        return -1;
    }
    if (self->received != NULL || given == NULL || !Py_IS_TYPE(given, state->receive_buffer_type)) {
        PyErr_SetString(PyExc_TypeError, "the receive buffer must be a ReceiveBuffer, and can be set only once");
        return -1;
    }
    self->received = (ReceiveBufferObject *)Py_NewRef(given);
    return 0;
}

static int
reader_traverse(ReaderObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->received);
    Py_VISIT(self->loop);
    Py_VISIT(self->waiter);
    Py_VISIT(self->exception);
    return 0;
}

/* The receive buffer is set once and stays, so it can be used without taking another reference. */
static int
reader_clear(ReaderObject *self)
{
    Py_CLEAR(self->loop);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->exception);
    return 0;
}

static void
reader_dealloc(ReaderObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    reader_clear(self);
    Py_XDECREF((PyObject *)self->received);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Fields that are not set read as None. */
static PyMemberDef reader_members[] = {
    {"_loop", T_OBJECT, offsetof(ReaderObject, loop), 0, NULL},
    {"_waiter", T_OBJECT, offsetof(ReaderObject, waiter), 0, NULL},
    {"_exception", T_OBJECT, offsetof(ReaderObject, exception), 0, NULL},
    {"_limit", T_PYSSIZET, offsetof(ReaderObject, limit), 0, NULL},
    {"_budget", T_PYSSIZET, offsetof(ReaderObject, budget), 0, NULL},
    {"_descriptor", T_INT, offsetof(ReaderObject, descriptor), 0, NULL},
    {"_leave_out", T_INT, offsetof(ReaderObject, leave_out), 0, NULL},
    {"_left_out", T_INT, offsetof(ReaderObject, left_out), 0, NULL},
    {"_paused", T_BOOL, offsetof(ReaderObject, paused), 0, NULL},
    {"_as_bytes", T_BOOL, offsetof(ReaderObject, as_bytes), 0, NULL},
    {"_eof", T_BOOL, offsetof(ReaderObject, eof), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef reader_getset[] = {
    {"_received", (getter)reader_get_received, (setter)reader_set_received, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, "The data that reads use and each receive updates."},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {Py_tp_members, reader_members},
    {Py_tp_getset, reader_getset},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    "aiopool._native._extension.ReaderBase", sizeof(ReaderObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, reader_slots,
};

/* Set the sizes, which are defined in _reader.py: at once, budget. */
static PyObject *
set_reader_sizes(PyObject *module, PyObject *args)
{
    Py_ssize_t at_once, budget;
    if (!PyArg_ParseTuple(args, "nn:set_reader_sizes", &at_once, &budget)) {
        return NULL;
    }
    if (at_once < 1 || budget < 1) {
        return PyErr_Format(PyExc_ValueError, "the sizes must be positive, and are %.80R", args);
    }
    State *state = PyModule_GetState(module);
    state->at_once = at_once;
    state->budget = budget;
    Py_RETURN_NONE;
}
