/* The C version of streams/_reader.py: the reads.

   `await reader.readexactly(n)` creates no coroutine: it returns a Read, whose first step takes the bytes. As with a
   coroutine, nothing happens before the first step, so a read that is cancelled before it begins takes nothing. If the
   bytes have not been received yet, the Read waits for them itself: an idle connection then holds a Read instead of a
   coroutine, which is several times as large. If anything is unusual, the Read creates the coroutine of the Python
   method and forwards every step to it. */

#pragma once

#include "reader.h"

struct ReadObject {
    PyObject_HEAD
    PyObject *reader;   /* NULL when the read has ended */
    PyObject *argument; /* NULL: none was given */
    PyObject *running;  /* what steps are forwarded to: the iterator of a future, a coroutine, or NULL */
    int kind;
    bool waits; /* whether running is the iterator of the future */
};

static const char *const slow_read_names[READS] = {
    "_read_slow", "_readexactly_slow", "_readuntil_slow", "_readline_slow", "_next_line_slow",
};

static const char *const read_names[READS] = {
    "StreamReader.read", "StreamReader.readexactly", "StreamReader.readuntil", "StreamReader.readline",
    "StreamReader.__anext__",
};

/* Take n bytes. Returns NULL if this would resume a paused transport, which is left to the slow path. */
static PyObject *
take_of_many(ReaderObject *reader, Py_ssize_t n, bool as_bytes)
{
    ReceiveBufferObject *buffer = reader->received;
    if (reader->paused && buffer->unread - n <= reader->limit) {
        return NULL;
    }
    return as_bytes ? receive_take_bytes(buffer, n) : receive_take(buffer, n);
}

/* Return the argument of read() or readexactly(); 0 if it is left to the Python method. */
static Py_ssize_t
length_asked(ReadObject *self)
{
    if (self->argument == NULL || !PyLong_CheckExact(self->argument)) {
        return 0;
    }
    Py_ssize_t n = PyLong_AsSsize_t(self->argument);
    if (n == -1) {
        PyErr_Clear();
    }
    return n > 0 ? n : 0;
}

/* Return the separator that the read looks for, and its length; a length of 0 if it is left to the Python method. */
static const char *
separator_asked(ReadObject *self, Py_ssize_t *n)
{
    if (self->kind != READUNTIL || self->argument == NULL) {
        *n = 1;
        return "\n";
    }
    if (!PyBytes_CheckExact(self->argument)) {
        *n = 0;
        return NULL;
    }
    *n = PyBytes_GET_SIZE(self->argument);
    return PyBytes_AS_STRING(self->argument);
}

static PyObject *
take_n(ReaderObject *reader, Py_ssize_t n, bool exactly)
{
    ReceiveBufferObject *buffer = reader->received;
    Py_ssize_t row = buffer->end - buffer->start;
    if (n == 0 || row == 0) {
        return NULL;
    }
    if (n > row) {
        /* Reads that span several chunks are left to the slow path. */
        if (exactly || (reader->as_bytes && buffer->unread > row)) {
            return NULL;
        }
        n = row;
    }
    return take_of_many(reader, n, reader->as_bytes);
}

static PyObject *
take_until(ReaderObject *reader, const char *separator, Py_ssize_t n)
{
    ReceiveBufferObject *buffer = reader->received;
    if (n == 0 || buffer->chunk == NULL) {
        return NULL;
    }
    Py_ssize_t at = search(bytes_of(buffer->chunk) + buffer->start, buffer->end - buffer->start, separator, n);
    return at < 0 || at > reader->limit ? NULL : take_of_many(reader, at + n, true);
}

static inline bool
is_of_n(ReadObject *self)
{
    return self->kind == READ || self->kind == READEXACTLY;
}

/* Take the bytes, if they have been received. Returns NULL without an exception if they have not. */
static PyObject *
read_now(ReadObject *self, ReaderObject *reader)
{
    PyObject *result;
    Py_ssize_t n;
    Py_BEGIN_CRITICAL_SECTION(reader->received);
    if (is_of_n(self)) {
        result = take_n(reader, length_asked(self), self->kind == READEXACTLY);
    }
    else {
        const char *separator = separator_asked(self, &n);
        result = take_until(reader, separator, n);
    }
    Py_END_CRITICAL_SECTION();
    return result;
}

/* Return how many unread bytes the read has to wait for; 0 if the Python method must wait. It does so for large messages
   too, because they pause the transport, and a cancelled read has to resume it. */
static Py_ssize_t
needed_for(ReadObject *self, ReaderObject *reader, State *state)
{
    Py_ssize_t unread = reader->received->unread, n;
    if (self->kind == READEXACTLY) {
        n = length_asked(self);
        return n > unread && n <= reader->limit && n < state->sizes.big ? n : 0;
    }
    if (self->kind == READ) {
        n = length_asked(self);
    }
    else {
        separator_asked(self, &n);
    }
    return n > 0 && unread == 0 ? 1 : 0;
}

static void
read_end(ReadObject *self)
{
    self->waits = false;
    Py_CLEAR(self->running);
    Py_CLEAR(self->argument);
    Py_CLEAR(self->reader);
}

/* Create the coroutine of the Python method. */
static int
read_run(ReadObject *self)
{
    State *state = PyType_GetModuleState(Py_TYPE(self));
    PyObject *name = state->slow_reads[self->kind];
    self->running = self->argument == NULL ? PyObject_CallMethodNoArgs(self->reader, name)
                                           : PyObject_CallMethodOneArg(self->reader, name, self->argument);
    return self->running == NULL ? -1 : 0;
}

/* Return the iterator that `await future` would use. */
static PyObject *
iterator_of(PyObject *future)
{
    PyAsyncMethods *methods = Py_TYPE(future)->tp_as_async;
    if (methods == NULL || methods->am_await == NULL) {
        return PyErr_Format(PyExc_TypeError, "the loop's create_future() returned %.80R, which cannot be awaited",
                            future);
    }
    return methods->am_await(future);
}

/* What a read does next if its bytes have not been received. */
enum { STEP_FAILED = -1, STEP_UNUSUAL, STEP_WAITS, STEP_RECEIVED };

/* Have the read wait until there are `needed` bytes in all, as _wait() does in Python. */
static int
begin_to_wait(ReadObject *self, ReaderObject *reader, State *state, Py_ssize_t needed)
{
    int failed;
    Py_BEGIN_CRITICAL_SECTION(reader->received);
    failed = hold_little(reader->received);
    reader->received->needed = needed;
    Py_END_CRITICAL_SECTION();
    PyObject *loop = failed ? NULL : held(reader, &reader->loop);
    if (loop == NULL) {
        return failed ? STEP_FAILED : STEP_UNUSUAL;
    }
    PyObject *future = PyObject_CallMethodNoArgs(loop, state->reader_calls[CALL_CREATE_FUTURE]);
    Py_DECREF(loop);
    PyObject *iterator = future == NULL ? NULL : iterator_of(future);
    if (iterator == NULL) {
        Py_XDECREF(future);
        return STEP_FAILED;
    }
    PyObject *last;
    Py_BEGIN_CRITICAL_SECTION(reader);
    last = reader->waiter;
    reader->waiter = future;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(last);
    Py_XSETREF(self->running, iterator);
    self->waits = true;
    return STEP_WAITS;
}

/* What the Python method does if the bytes have not been received, in the usual case. */
static int
read_wait(ReadObject *self, ReaderObject *reader, State *state)
{
    if (reader->eof || reader->paused || is_set(reader->exception)) {
        return STEP_UNUSUAL;
    }
    Py_ssize_t needed = needed_for(self, reader, state);
    PyObject *waiter = needed == 0 ? NULL : pending_waiter(reader, state);
    if (needed == 0 || waiter != NULL || PyErr_Occurred()) {
        Py_XDECREF(waiter);
        return PyErr_Occurred() ? STEP_FAILED : STEP_UNUSUAL;
    }
    if (reader->left_out < reader->leave_out) {
        reader->left_out++;
    }
    else if (reader->descriptor != -1) {
        PyObject *number = PyLong_FromSsize_t(needed), *received = NULL;
        if (number != NULL) {
            received = PyObject_CallMethodOneArg((PyObject *)reader, state->reader_calls[CALL_RECEIVE_NOW], number);
            Py_DECREF(number);
        }
        if (received == NULL || received == Py_True) {
            Py_XDECREF(received);
            return received == NULL ? STEP_FAILED : STEP_RECEIVED;
        }
        Py_DECREF(received);
    }
    return begin_to_wait(self, reader, state, needed);
}

/* Returns 1 if the read has ended, with a result; 0 if `running` is to be run; -1 with an exception. */
static int
read_begin(ReadObject *self, ReaderObject *reader, PyObject **result)
{
    int found = STEP_UNUSUAL;
    State *state = reader->received == NULL ? NULL : PyType_GetModuleState(Py_TYPE(reader->received));
    do {
        if (state != NULL) {
            *result = read_now(self, reader);
            if (*result != NULL || PyErr_Occurred()) {
                return *result != NULL ? 1 : -1;
            }
            found = read_wait(self, reader, state);
        }
        if (self->reader == NULL) { /* a finalizer has closed it in the meantime */
            PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
            return -1;
        }
    } while (found == STEP_RECEIVED);
    return found == STEP_UNUSUAL ? read_run(self) : found == STEP_WAITS ? 0 : -1;
}

static PySendResult
read_send(ReadObject *self, PyObject *value, PyObject **result)
{
    *result = NULL;
    PyObject *reader = Py_XNewRef(self->reader);
    if (reader == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    PySendResult sent;
    for (;;) {
        int begun = self->running != NULL ? 0 : read_begin(self, (ReaderObject *)reader, result);
        if (begun != 0) {
            sent = begun > 0 ? PYGEN_RETURN : PYGEN_ERROR;
            break;
        }
        PyObject *running = Py_NewRef(self->running);
        sent = PyIter_Send(running, value, result);
        Py_DECREF(running);
        if (sent != PYGEN_RETURN || !self->waits) {
            break;
        }
        /* The future is done, so the bytes may have been received. */
        Py_CLEAR(*result);
        Py_CLEAR(self->running);
        self->waits = false;
        value = Py_None;
    }
    if (sent != PYGEN_NEXT) {
        read_end(self);
    }
    Py_DECREF(reader);
    return sent;
}

/* Creating a StopIteration costs as much as the rest of a small read. So one is kept, and reused if nothing else refers
   to it. It holds the last small result until the next one, but never a view of a chunk. It is used only for `await`,
   which adds no traceback to it, and not for send(): a traceback would keep frames alive. */
#if PY_VERSION_HEX >= 0x030c0000 && !defined(Py_GIL_DISABLED)
static bool
stop_with_spare(State *state, PyObject *result)
{
    PyStopIterationObject *stop = (PyStopIterationObject *)state->spare_stop;
    bool is_small = PyBytes_CheckExact(result)
                        ? PyBytes_GET_SIZE(result) <= 1024
                        : PyMemoryView_Check(result) && PyByteArray_CheckExact(PyMemoryView_GET_BUFFER(result)->obj);
    if (stop == NULL || Py_REFCNT(stop) > 1 || !is_small) {
        return false;
    }
    Py_CLEAR(stop->traceback);
    Py_CLEAR(stop->context);
    Py_XSETREF(stop->value, Py_NewRef(result));
    PyErr_SetRaisedException(Py_NewRef(stop));
    return true;
}
#else
static bool
stop_with_spare(State *Py_UNUSED(state), PyObject *Py_UNUSED(result))
{
    return false;
}
#endif

static PyObject *
read_next(ReadObject *self)
{
    PyObject *result;
    if (read_send(self, Py_None, &result) == PYGEN_RETURN) {
        if (!stop_with_spare(PyType_GetModuleState(Py_TYPE(self)), result)) {
            PyErr_SetObject(PyExc_StopIteration, result); /* unsafe only with a tuple or an exception */
        }
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *
read_send_method(ReadObject *self, PyObject *value)
{
    PyObject *result;
    if (read_send(self, value, &result) == PYGEN_RETURN) {
        PyErr_SetObject(PyExc_StopIteration, result);
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *
read_throw(ReadObject *self, PyObject *args)
{
    if (self->running == NULL && (self->reader == NULL || read_run(self) < 0)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        }
        return NULL;
    }
    PyObject *running = Py_NewRef(self->running);
    PyObject *throw = PyObject_GetAttrString(running, "throw");
    PyObject *result = throw == NULL ? NULL : PyObject_CallObject(throw, args);
    Py_XDECREF(throw);
    Py_DECREF(running);
    if (result == NULL) {
        read_end(self);
    }
    return result;
}

static PyObject *
read_close(ReadObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *running = Py_XNewRef(self->running);
    PyObject *closed = running == NULL ? Py_NewRef(Py_None) : PyObject_CallMethod(running, "close", NULL);
    Py_XDECREF(running);
    read_end(self);
    return closed;
}

static PyObject *
read_await(PyObject *self)
{
    return Py_NewRef(self);
}

static PyObject *
read_get_name(ReadObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(read_names[self->kind]);
}

static int
read_traverse(ReadObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->reader);
    Py_VISIT(self->argument);
    Py_VISIT(self->running);
    return 0;
}

static int
read_clear(ReadObject *self)
{
    read_end(self);
    return 0;
}

/* One Read is kept for the next read; but not without a GIL, where threads would contend for it. */
static void
drop_spare_read(State *state)
{
    if (state->spare_read != NULL) {
        PyObject_GC_Del(state->spare_read);
        state->spare_read = NULL;
    }
}

static void
read_dealloc(ReadObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    read_end(self);
#ifndef Py_GIL_DISABLED
    State *state = PyType_GetModuleState(type);
    if (state != NULL && state->read_type == type && state->spare_read == NULL) {
        state->spare_read = self;
        Py_DECREF(type);
        return;
    }
#endif
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
read_new(State *state, PyObject *reader, int kind, PyObject *argument)
{
    ReadObject *self = state->spare_read;
    if (self != NULL) {
        state->spare_read = NULL;
        PyObject_Init((PyObject *)self, state->read_type);
    }
    else if ((self = PyObject_GC_New(ReadObject, state->read_type)) == NULL) {
        return NULL;
    }
    self->reader = Py_NewRef(reader);
    self->argument = Py_XNewRef(argument);
    self->running = NULL;
    self->kind = kind;
    self->waits = false;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static PyMethodDef read_methods[] = {
    {"send", (PyCFunction)read_send_method, METH_O, "As for a coroutine."},
    {"throw", (PyCFunction)read_throw, METH_VARARGS, "As for a coroutine."},
    {"close", (PyCFunction)read_close, METH_NOARGS, "As for a coroutine."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef read_getset[] = {
    {"__name__", (getter)read_get_name, NULL, NULL, NULL},
    {"__qualname__", (getter)read_get_name, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot read_slots[] = {
    {Py_tp_doc, "A read that begins when it is awaited. It has the methods of a coroutine."},
    {Py_tp_dealloc, read_dealloc},
    {Py_tp_traverse, read_traverse},
    {Py_tp_clear, read_clear},
    {Py_am_await, read_await},
    {Py_am_send, read_send},
    {Py_tp_iter, read_await},
    {Py_tp_iternext, read_next},
    {Py_tp_methods, read_methods},
    {Py_tp_getset, read_getset},
    {0, NULL},
};

static PyType_Spec read_spec = {
    "aiopool._native._extension.Read", sizeof(ReadObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, read_slots,
};

/* --- the methods of StreamReader --- */

/* Return a Read if the arguments are right: at most one, positional or with the given name. Otherwise call the Python
   method, which raises the error. */
static PyObject *
begin_read(ReaderObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords, int kind, const char *name)
{
    Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords);
    Py_ssize_t most = kind == READLINE || kind == NEXT_LINE ? 0 : 1, least = kind == READEXACTLY ? 1 : 0;
    State *state = self->received == NULL ? state_of(Py_TYPE(self)) : PyType_GetModuleState(Py_TYPE(self->received));
    if (state == NULL) {
        return NULL;
    }
    if (count + named > most || count + named < least
        || (named > 0 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), name) != 0)) {
        PyObject *method = PyObject_GetAttr((PyObject *)self, state->slow_reads[kind]);
        PyObject *result = method == NULL ? NULL : PyObject_Vectorcall(method, args, (size_t)count, keywords);
        Py_XDECREF(method);
        return result;
    }
    return read_new(state, (PyObject *)self, kind, count + named > 0 ? args[0] : NULL);
}

static PyObject *
reader_read(ReaderObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    return begin_read(self, args, count, keywords, READ, "n");
}

static PyObject *
reader_readexactly(ReaderObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    return begin_read(self, args, count, keywords, READEXACTLY, "n");
}

static PyObject *
reader_readuntil(ReaderObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    return begin_read(self, args, count, keywords, READUNTIL, "separator");
}

static PyObject *
reader_readline(ReaderObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    return begin_read(self, args, count, keywords, READLINE, "");
}

static PyObject *
reader_next_line(ReaderObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    return begin_read(self, args, count, keywords, NEXT_LINE, "");
}

static PyMethodDef reader_methods[] = {
    {"get_buffer", (PyCFunction)reader_get_buffer, METH_O, NULL},
    {"buffer_updated", (PyCFunction)reader_buffer_updated, METH_O, NULL},
    {"_have_more", (PyCFunction)reader_have_more, METH_NOARGS, NULL},
    {"read", (PyCFunction)(void (*)(void))reader_read, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"readexactly", (PyCFunction)(void (*)(void))reader_readexactly, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"readuntil", (PyCFunction)(void (*)(void))reader_readuntil, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"readline", (PyCFunction)(void (*)(void))reader_readline, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"__anext__", (PyCFunction)(void (*)(void))reader_next_line, METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};
