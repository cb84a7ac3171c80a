/* The C version of streams/_receive_now.py: a non-blocking receive, without creating the objects that Python code needs
   for one. */

#pragma once

#include "receive_buffer.h"

#ifndef MS_WINDOWS

#include <errno.h>
#include <sys/socket.h>

static PyObject *
receive_now(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    State *state = PyModule_GetState(module);
    if (count != 3 || !Py_IS_TYPE(args[1], state->receive_buffer_type)) {
        PyErr_SetString(PyExc_TypeError, "receive_now() takes a descriptor, a ReceiveBuffer, and a number of bytes");
        return NULL;
    }
    ReceiveBufferObject *buffer = (ReceiveBufferObject *)args[1];
    int descriptor = PyObject_AsFileDescriptor(args[0]);
    Py_ssize_t most = descriptor < 0 ? -1 : PyLong_AsSsize_t(args[2]), from, received = -1;
    if (most < 0) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "cannot receive %zd bytes", most);
    }
    PyObject *target;
    Py_BEGIN_CRITICAL_SECTION(buffer);
    target = Py_XNewRef(receive_target(buffer, 0, &from));
    Py_END_CRITICAL_SECTION();
    if (target == NULL) {
        return NULL;
    }
    Py_ssize_t room = length_of(target) - from;
    /* The reference in target keeps it alive while other threads run. */
    Py_BEGIN_ALLOW_THREADS
    received = recv(descriptor, bytes_of(target) + from, (size_t)(room < most ? room : most), MSG_DONTWAIT);
    Py_END_ALLOW_THREADS
    int failed = received < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
    if (failed) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_BEGIN_CRITICAL_SECTION(buffer);
    if (received <= 0) {
        Py_CLEAR(buffer->offered);
    }
    else {
        Py_ssize_t *end;
        if (given_room(buffer, &end) != target || *end != from) {
            PyErr_SetString(PyExc_RuntimeError, "another thread uses this stream");
            failed = 1;
        }
        failed = failed || receive_received(buffer, received) < 0;
    }
    Py_END_CRITICAL_SECTION();
    Py_DECREF(target);
    return failed ? NULL : PyLong_FromSsize_t(received < 0 ? 0 : received);
}

#define RECEIVE_NOW_METHODS \
    {"receive_now", (PyCFunction)(void (*)(void))receive_now, METH_FASTCALL, \
     "Receive into the room of a ReceiveBuffer without waiting, and return the number of bytes."},
#else
#define RECEIVE_NOW_METHODS
#endif
