/* The low-water mark of a socket. See _low_water.py, which is the place to read first: this is a system call or two
   without the two or three objects that a transport's socket puts around it, for each message. */

#pragma once

#include "state.h"

#ifdef __linux__

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static PyObject *
set_low_water(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "set_low_water() takes a descriptor, a number of bytes, and whether to acknowledge");
        return NULL;
    }
    int fd = PyObject_AsFileDescriptor(args[0]);
    long number = fd == -1 ? -1 : PyLong_AsLong(args[1]);
    int acknowledge = PyErr_Occurred() ? -1 : PyObject_IsTrue(args[2]);
    if (acknowledge < 0) {
        return NULL;
    }
    int nbytes = number < 1 ? 1 : number > INT_MAX ? INT_MAX : (int)number;
    /* They do not block, so there is nothing to let other threads run for. */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &nbytes, sizeof nbytes) < 0
        || (acknowledge && setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &acknowledge, sizeof acknowledge) < 0)) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

#define LOW_WATER_METHODS \
    {"set_low_water", (PyCFunction)(void (*)(void))set_low_water, METH_FASTCALL, \
     "Have a TCP socket be readable from so many bytes on, and maybe acknowledge what there is."},
#else
#define LOW_WATER_METHODS
#endif
