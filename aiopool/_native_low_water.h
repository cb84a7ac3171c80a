/* The low-water mark of a socket. See _low_water.py, which is the place to read first: this is one system call without
   the two or three objects that a transport's socket puts around it, for each message. */

#pragma once

#include "_native_state.h"

#ifdef __linux__

#include <errno.h>
#include <sys/socket.h>

static PyObject *
set_low_water(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "set_low_water() takes a file descriptor and a number of bytes");
        return NULL;
    }
    int fd = PyObject_AsFileDescriptor(args[0]);
    long number = fd == -1 ? -1 : PyLong_AsLong(args[1]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    int nbytes = number < 1 ? 1 : number > INT_MAX ? INT_MAX : (int)number;
    /* It does not block, so there is nothing to let other threads run for. */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &nbytes, sizeof nbytes) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

#define LOW_WATER_METHODS \
    {"set_low_water", (PyCFunction)(void (*)(void))set_low_water, METH_FASTCALL, \
     "Have the socket with this file descriptor be readable from so many bytes on."},
#else
#define LOW_WATER_METHODS
#endif
