/* The C version of streams/_receive_buffer.py, which should be read first: the bytes that a stream has received, and
   the place for its next bytes.

   An allocation may start a garbage collection, and this may run a finalizer that reads from the same stream. So
   after each allocation the state is checked again, and if it has changed, the call fails instead of taking bytes
   twice. */

#pragma once

#include "buffer_pool.h"

typedef struct {
    PyObject_HEAD
    PyObject *buffers;
    PyObject *chunk;   /* a memoryview, or NULL */
    PyObject *later;   /* a list of memoryviews that is not empty, or NULL */
    PyObject *offered; /* a memoryview, or NULL */
    Py_ssize_t start, end, filled, size, needed, unread;
} ReceiveBufferObject;

static inline Sizes *
receive_sizes(ReceiveBufferObject *self)
{
    return &((State *)PyType_GetModuleState(Py_TYPE(self)))->sizes;
}

/* The views are contiguous bytes, created by acquire or in this file. No other code can release them, because callers
   only get views of these views. */
static inline char *
bytes_of(PyObject *view)
{
    return PyMemoryView_GET_BUFFER(view)->buf;
}

static inline Py_ssize_t
length_of(PyObject *view)
{
    return PyMemoryView_GET_BUFFER(view)->len;
}

static inline Py_ssize_t
larger(Py_ssize_t one, Py_ssize_t other)
{
    return one > other ? one : other;
}

static inline Py_ssize_t
later_count(ReceiveBufferObject *self)
{
    return self->later == NULL ? 0 : PyList_GET_SIZE(self->later);
}

static PyObject *
changed_meanwhile(void)
{
    PyErr_SetString(PyExc_RuntimeError, "a finalizer read from this stream in the middle of another read");
    return NULL;
}

static PyObject *
acquire_view(ReceiveBufferObject *self, Py_ssize_t size)
{
    PyObject *number = PyLong_FromSsize_t(size);
    if (number == NULL) {
        return NULL;
    }
    State *state = PyType_GetModuleState(Py_TYPE(self));
    PyObject *view = PyObject_CallMethodOneArg(self->buffers, state->acquire, number);
    Py_DECREF(number);
    if (view != NULL && !(PyMemoryView_Check(view) && PyMemoryView_GET_BUFFER(view)->buf != NULL
                          && length_of(view) >= size && PyBuffer_IsContiguous(PyMemoryView_GET_BUFFER(view), 'C')
                          && !PyMemoryView_GET_BUFFER(view)->readonly)) {
        Py_SETREF(view, PyErr_Format(PyExc_TypeError, "acquire returned %.80R, not a view of %zd bytes", view, size));
    }
    return view;
}

static PyObject *
acquire_chunk(ReceiveBufferObject *self, Py_ssize_t size)
{
    Sizes *sizes = receive_sizes(self);
    if (size < self->size) {
        size = self->size;
    }
    else {
        State *state = PyType_GetModuleState(Py_TYPE(self));
        PyObject *found = PyObject_GetAttr(self->buffers, state->max_size);
        Py_ssize_t max_size = found == NULL ? -1 : PyLong_AsSsize_t(found);
        Py_XDECREF(found);
        if (max_size == -1 && PyErr_Occurred()) {
            return NULL;
        }
        if (size <= max_size - sizes->room) {
            size += sizes->room;
        }
    }
    return acquire_view(self, size);
}

/* Return a view of a copy of n bytes, which are uninitialized if bytes is NULL. */
static PyObject *
copied_view(const char *bytes, Py_ssize_t n)
{
    PyObject *copy = PyByteArray_FromStringAndSize(bytes, n);
    PyObject *view = copy == NULL ? NULL : PyMemoryView_FromObject(copy);
    Py_XDECREF(copy);
    return view;
}

#ifdef Py_GIL_DISABLED
static bool
is_plain(const Py_buffer *buffer)
{
    return buffer->ndim == 1 && !buffer->readonly && PyBuffer_IsContiguous(buffer, 'C')
           && (buffer->format == NULL || strcmp(buffer->format, "B") == 0);
}
#endif

/* Return a view of a part of a chunk. Without a GIL it does not share CPython's managed buffer with the chunk, because
   CPython does not count the views of one managed buffer atomically (python/cpython#127716): this loop goes on slicing
   the chunk while another thread may slice or drop the result. */
static PyObject *
view_of_part(PyObject *chunk, Py_ssize_t start, Py_ssize_t n)
{
#ifdef Py_GIL_DISABLED
    PyObject *exporter = PyMemoryView_GET_BUFFER(chunk)->obj;
    PyObject *whole = exporter == NULL ? NULL : PyMemoryView_FromObject(exporter);
    if (whole != NULL && is_plain(PyMemoryView_GET_BUFFER(whole))) {
        Py_ssize_t before = bytes_of(chunk) + start - bytes_of(whole);
        if (before >= 0 && before <= length_of(whole) - n) {
            PyObject *part = PySequence_GetSlice(whole, before, before + n);
            Py_DECREF(whole);
            return part;
        }
    }
    /* A pool that is a subclass may use other exporters: some have no second view, or one with another format. */
    PyErr_Clear();
    Py_XDECREF(whole);
    return copied_view(bytes_of(chunk) + start, n);
#else
    return PySequence_GetSlice(chunk, start, start + n);
#endif
}

/* Copy the first n unread bytes to target. */
static void
copy_out(ReceiveBufferObject *self, char *target, Py_ssize_t n)
{
    Py_ssize_t part = self->end - self->start < n ? self->end - self->start : n;
    if (part > 0) {
        memcpy(target, bytes_of(self->chunk) + self->start, (size_t)part);
    }
    for (Py_ssize_t i = 0; i < later_count(self) && part < n; i++) {
        PyObject *view = PyList_GET_ITEM(self->later, i);
        Py_ssize_t there = i + 1 == later_count(self) ? self->filled : length_of(view);
        there = there < n - part ? there : n - part;
        memcpy(target + part, bytes_of(view), (size_t)there);
        part += there;
    }
}

static PyObject *
take_first(ReceiveBufferObject *self)
{
    PyObject *first = Py_NewRef(PyList_GET_ITEM(self->later, 0));
    if (PyList_SetSlice(self->later, 0, 1, NULL) < 0) { /* does not fail, because shrinking needs no memory */
        PyErr_Clear();
    }
    return first;
}

static void
next_chunk(ReceiveBufferObject *self)
{
    self->start = self->end = 0;
    PyObject *last = self->chunk;
    self->chunk = NULL;
    if (self->later != NULL) {
        self->chunk = take_first(self);
        self->end = length_of(self->chunk);
        if (PyList_GET_SIZE(self->later) == 0) {
            Py_CLEAR(self->later);
            self->end = self->filled;
            if (self->filled == 0) {
                Py_CLEAR(self->chunk);
            }
        }
    }
    Py_XDECREF(last);
}

static void
receive_skip(ReceiveBufferObject *self, Py_ssize_t n)
{
    self->needed = 0;
    self->unread -= n;
    while (self->chunk != NULL && n >= self->end - self->start) {
        n -= self->end - self->start;
        next_chunk(self);
    }
    self->start += n;
}

static int
set_aside(ReceiveBufferObject *self)
{
    Py_ssize_t unread = self->unread;
    PyObject *copy = PyByteArray_FromStringAndSize(NULL, unread);
    PyObject *view = copy == NULL ? NULL : PyMemoryView_FromObject(copy);
    Py_XDECREF(copy);
    if (view == NULL) {
        return -1;
    }
    if (self->unread != unread) {
        Py_DECREF(view);
        changed_meanwhile();
        return -1;
    }
    copy_out(self, bytes_of(view), unread);
    PyObject *chunk = self->chunk, *later = self->later;
    self->chunk = view;
    self->later = NULL;
    self->start = 0;
    self->end = unread;
    Py_XDECREF(chunk);
    Py_XDECREF(later);
    return 0;
}

/* Shorten the last of the later chunks to its filled part. */
static int
trim_last(ReceiveBufferObject *self)
{
    Py_ssize_t last = later_count(self) - 1;
    PyObject *view = Py_NewRef(PyList_GET_ITEM(self->later, last));
    PyObject *trimmed = PySequence_GetSlice(view, 0, self->filled);
    bool is_same = last == later_count(self) - 1 && PyList_GET_ITEM(self->later, last) == view;
    Py_DECREF(view);
    if (trimmed == NULL) {
        return -1;
    }
    if (!is_same) {
        Py_DECREF(trimmed);
        changed_meanwhile();
        return -1;
    }
    return PyList_SetItem(self->later, last, trimmed);
}

/* Merge the first chunk and count of the later ones into one chunk of at least size bytes. */
static int
merge_chunks(ReceiveBufferObject *self, Py_ssize_t count, Py_ssize_t size)
{
    if (self->later == NULL && self->unread <= receive_sizes(self)->room
        && receive_sizes(self)->room < length_of(self->chunk) && set_aside(self) < 0) {
        return -1;
    }
    Py_ssize_t total = self->end - self->start, unread = self->unread;
    for (Py_ssize_t i = 0; i < count; i++) {
        bool is_last = i + 1 == later_count(self);
        total += is_last ? self->filled : length_of(PyList_GET_ITEM(self->later, i));
    }
    PyObject *merged = acquire_chunk(self, larger(size, total));
    if (merged == NULL) {
        return -1;
    }
    if (self->unread != unread || later_count(self) < count) {
        Py_DECREF(merged);
        changed_meanwhile();
        return -1;
    }
    copy_out(self, bytes_of(merged), total);
    PyObject *chunk = self->chunk, *later = self->later;
    self->chunk = merged;
    self->start = 0;
    self->end = total;
    int failed = 0;
    if (count == later_count(self)) {
        self->later = NULL;
        Py_XDECREF(later);
    }
    else if (count > 0) {
        failed = PyList_SetSlice(later, 0, count, NULL);
    }
    Py_DECREF(chunk);
    return failed;
}

static int
grow_chunk(ReceiveBufferObject *self)
{
    Py_ssize_t unread = self->unread;
    Py_ssize_t more = self->needed > unread + 1 ? self->needed : unread + larger(unread, self->size);
    return merge_chunks(self, later_count(self), more);
}

static bool
has_room(ReceiveBufferObject *self)
{
    Py_ssize_t length = length_of(self->chunk), room = length - self->end, least = receive_sizes(self)->room;
    if (room >= least) {
        return self->needed <= length - self->start;
    }
    return room > 0 && least < self->unread && self->unread < self->needed && self->needed <= length - self->start;
}

static int
begin_later(ReceiveBufferObject *self, Py_ssize_t known)
{
    Sizes *sizes = receive_sizes(self);
    PyObject *begun = acquire_view(self, larger(known, self->needed >= sizes->big ? sizes->first : self->size));
    if (begun == NULL) {
        return -1;
    }
    int failed;
    if (self->later == NULL) {
        self->later = PyList_New(1);
        failed = self->later == NULL;
        if (!failed) {
            PyList_SET_ITEM(self->later, 0, Py_NewRef(begun));
        }
    }
    else {
        failed = trim_last(self) < 0 || PyList_Append(self->later, begun) < 0;
    }
    Py_DECREF(begun);
    if (failed) {
        return -1;
    }
    self->filled = 0;
    return 0;
}

/* The view that the next bytes are written to, and the offset there. Borrowed. */
static PyObject *
receive_target(ReceiveBufferObject *self, Py_ssize_t known, Py_ssize_t *from)
{
    Sizes *sizes = receive_sizes(self);
    *from = 0;
    if (self->chunk == NULL) {
        PyObject *chunk = acquire_chunk(self, larger(self->needed, known));
        if (chunk != NULL) {
            Py_XSETREF(self->offered, chunk);
        }
        return chunk;
    }
    if (self->unread < self->needed) {
        if ((self->later != NULL || !has_room(self)) && grow_chunk(self) < 0) {
            return NULL;
        }
        *from = self->end;
        return self->chunk;
    }
    PyObject *last = self->later != NULL ? PyList_GET_ITEM(self->later, later_count(self) - 1) : self->chunk;
    *from = self->later != NULL ? self->filled : self->end;
    if (length_of(last) - *from >= larger(sizes->room, known)) {
        return last;
    }
    if (self->unread <= sizes->room && known <= sizes->room) {
        if (grow_chunk(self) < 0) {
            return NULL;
        }
        *from = self->end;
        return self->chunk;
    }
    *from = 0;
    return begin_later(self, known) < 0 ? NULL : PyList_GET_ITEM(self->later, later_count(self) - 1);
}

/* Its writable part; `most` bytes at most, unless more are waited for. */
static PyObject *
receive_room(ReceiveBufferObject *self, Py_ssize_t known, Py_ssize_t most)
{
    Py_ssize_t from;
    PyObject *target = receive_target(self, known, &from);
    if (target == NULL) {
        return NULL;
    }
    bool is_bounded = self->unread >= self->needed && length_of(target) - from > most;
    Py_ssize_t stop = is_bounded ? from + most : length_of(target);
    /* Held, so that it is still there if a finalizer takes it. */
    Py_INCREF(target);
    PyObject *room = from == 0 && stop == length_of(target) ? PyMemoryView_FromObject(target)
                                                            : PySequence_GetSlice(target, from, stop);
    Py_DECREF(target);
    return room;
}

/* The view that was last given as room, and where that room began. Borrowed. NULL if none was given. */
static PyObject *
given_room(ReceiveBufferObject *self, Py_ssize_t **end)
{
    *end = self->later != NULL ? &self->filled : &self->end;
    return self->later != NULL ? PyList_GET_ITEM(self->later, later_count(self) - 1)
           : self->chunk != NULL ? self->chunk : self->offered;
}

static int
receive_received(ReceiveBufferObject *self, Py_ssize_t nbytes)
{
    Py_ssize_t *end;
    PyObject *target = given_room(self, &end);
    if (target == NULL || nbytes < 0 || nbytes > length_of(target) - *end) {
        PyErr_Format(PyExc_ValueError, "there was no room for %zd bytes", nbytes);
        return -1;
    }
    if (self->chunk == NULL) {
        self->chunk = self->offered;
        self->offered = NULL;
    }
    self->unread += nbytes;
    *end += nbytes;
    Sizes *sizes = receive_sizes(self);
    if (*end == length_of(target) && self->needed < sizes->big) {
        self->size = 4 * self->size < sizes->most ? 4 * self->size : sizes->most;
    }
    return 0;
}

/* Return a view of the first n unread bytes. */
static PyObject *
receive_take(ReceiveBufferObject *self, Py_ssize_t n)
{
    Sizes *sizes = receive_sizes(self);
    PyObject *view;
    Py_ssize_t unread = self->unread;
    if (self->chunk == NULL || n > self->end - self->start) {
        view = n < sizes->room ? copied_view(NULL, n) : acquire_view(self, n);
        if (view != NULL && self->unread == unread) {
            copy_out(self, bytes_of(view), n);
        }
    }
    else {
        /* Held, so that it is still there if a finalizer takes it. */
        PyObject *chunk = Py_NewRef(self->chunk);
        if (n < (length_of(chunk) + sizes->pinned - 1) / sizes->pinned) {
            view = copied_view(bytes_of(chunk) + self->start, n);
        }
        else {
            view = view_of_part(chunk, self->start, n);
            if (n >= sizes->big) {
                self->size = sizes->first;
            }
        }
        Py_DECREF(chunk);
    }
    if (view != NULL && self->unread != unread) {
        Py_DECREF(view);
        return changed_meanwhile();
    }
    if (view != NULL) {
        receive_skip(self, n);
    }
    return view;
}

static PyObject *
receive_take_bytes(ReceiveBufferObject *self, Py_ssize_t n)
{
    PyObject *taken = PyBytes_FromStringAndSize(NULL, n); /* starts no garbage collection */
    if (taken != NULL) {
        copy_out(self, PyBytes_AS_STRING(taken), n);
        receive_skip(self, n);
    }
    return taken;
}

/* The offset of separator in bytes; -1 if it is not there. */
static Py_ssize_t
search(const char *bytes, Py_ssize_t length, const char *separator, Py_ssize_t n)
{
    const char *at = bytes, *stop = bytes + length - n + 1;
    while (at < stop && (at = memchr(at, separator[0], (size_t)(stop - at))) != NULL) {
        if (memcmp(at + 1, separator + 1, (size_t)(n - 1)) == 0) {
            return at - bytes;
        }
        at++;
    }
    return -1;
}

/* Search the first chunk, from offset searched on, for the separator that ends first. Sets start and stop to its range.
   Returns whether there is one. */
static bool
find_in_chunk(ReceiveBufferObject *self, PyObject *separators, Py_ssize_t searched, Py_ssize_t *start, Py_ssize_t *stop)
{
    const char *bytes = bytes_of(self->chunk) + self->start;
    Py_ssize_t row = self->end - self->start;
    *start = *stop = PY_SSIZE_T_MAX;
    for (Py_ssize_t i = 0; searched < row && i < PyList_GET_SIZE(separators); i++) {
        PyObject *separator = PyList_GET_ITEM(separators, i);
        Py_ssize_t n = PyBytes_GET_SIZE(separator);
        Py_ssize_t at = search(bytes + searched, row - searched, PyBytes_AS_STRING(separator), n);
        if (at >= 0 && searched + at + n < *stop) {
            *start = searched + at;
            *stop = *start + n;
        }
    }
    return *stop < PY_SSIZE_T_MAX;
}

static PyObject *
receive_find(ReceiveBufferObject *self, PyObject *separators, Py_ssize_t searched)
{
    Py_ssize_t longest = PyBytes_GET_SIZE(PyList_GET_ITEM(separators, PyList_GET_SIZE(separators) - 1));
    while (self->chunk != NULL) {
        Py_ssize_t start, stop;
        if (find_in_chunk(self, separators, searched, &start, &stop)) {
            return Py_BuildValue("(nn)", start, stop);
        }
        if (self->later == NULL) {
            break;
        }
        Py_ssize_t row = self->end - self->start, count = 0;
        searched = larger(searched, row + 1 - longest);
        for (Py_ssize_t nbytes = row; count < later_count(self) && nbytes > 0; count++) {
            nbytes -= length_of(PyList_GET_ITEM(self->later, count));
        }
        if (merge_chunks(self, count, count == later_count(self) ? 2 * self->unread : 0) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

/* Hold no large chunk for the beginning of a message. */
static int
hold_little(ReceiveBufferObject *self)
{
    Sizes *sizes = receive_sizes(self);
    bool is_little = self->chunk != NULL && self->unread <= sizes->room;
    return is_little && length_of(self->chunk) > sizes->pinned * sizes->room ? set_aside(self) : 0;
}
