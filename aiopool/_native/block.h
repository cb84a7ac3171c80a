/* The C version of _core/block.py: a block's memory, and its buffer interface.

   A block is its own exporter, to which CPython holds a reference as long as any view over it lives. When the last view
   is gone, its deallocator puts the block back into its store instead of freeing it (size_class.h). The garbage
   collector does not track blocks, so it never breaks one apart early. It need not track them, because an idle block is
   in a store, and closing the size class empties the store. */

#pragma once

#include "budget.h"
#include "memory.h"
#include "store.h"

typedef struct {
    PyObject_HEAD
    PyObject *module;
    State *state;
    Py_ssize_t size; /* 0: blocks are not kept, and each has exactly the requested size */
    StoreObject *store;
    BudgetObject *budget;
    PerProcessor in_use;   /* bytes that are checked out */
    Count displaced;       /* blocks */
    PyObject *holders;     /* a dict of the recorded blocks that are checked out, by their address */
    long long sample_bits; /* an acquire is recorded if its number has none of these bits */
    char wipe;
    Flag closed;
} SizeClassObject;

typedef struct {
    PyObject_HEAD
    SizeClassObject *size_class;
    char *bytes;
    Py_ssize_t size;
    union {                  /* so that the whole object fits in one cache line */
        Py_ssize_t length;   /* of the view, while checked out */
        uint64_t idle_since; /* a value of the budget's `now`, while idle */
    };
    PyObject *holder; /* its key in the holders, while checked out; NULL: it is not recorded */
    char is_mapped;
    char idle;
    char checked_out;
    PADDING
} BlockObject;

/* Without a GIL an object belongs to the thread that created it. If another thread drops the last reference, CPython
   leaves the deallocation to the owning thread, which may be asleep. Blocks pass from thread to thread, so they belong
   to none. */
static void
belong_to_no_thread(PyObject *block)
{
#ifdef Py_GIL_DISABLED
    block->ob_tid = 0;
    Py_SET_REFCNT(block, 1);
#else
    (void)block;
#endif
}

static BlockObject *
block_make(SizeClassObject *size_class, Py_ssize_t size)
{
    PyTypeObject *type = size_class->state->block_type;
    BlockObject *self = (BlockObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    belong_to_no_thread((PyObject *)self);
    self->size_class = (SizeClassObject *)Py_NewRef(size_class);
    self->bytes = memory_allocate(size, &self->is_mapped);
    if (self->bytes == NULL) {
        Py_DECREF(self);
        PyErr_NoMemory();
        return NULL;
    }
    self->size = size;
    size_class->budget->now++;
    return self;
}

static bool block_come_back(BlockObject *self);

static void
block_dealloc(BlockObject *self)
{
    if (self->checked_out && block_come_back(self)) {
        return;
    }
    PyTypeObject *type = Py_TYPE(self);
    SizeClassObject *size_class = self->size_class;
    memory_free(self->bytes, self->size, self->is_mapped);
    if (self->idle) {
        /* Given back to the common budget, because any thread may run this; and only after the memory was freed, so
           that the idle bytes never exceed the limit. */
        budget_give_back(size_class->budget, NULL, self->size);
    }
    type->tp_free(self);
    Py_XDECREF((PyObject *)size_class);
    Py_DECREF(type);
}

static int
block_getbuffer(BlockObject *self, Py_buffer *view, int flags)
{
    if (!self->checked_out) {
        view->obj = NULL;
        PyErr_SetString(PyExc_BufferError, "cannot export an idle block");
        return -1;
    }
    return PyBuffer_FillInfo(view, (PyObject *)self, self->bytes, self->length, 0, flags);
}

static Py_ssize_t
block_length(BlockObject *self)
{
    return self->size;
}

static PyType_Slot block_slots[] = {
    {Py_tp_doc, "Bytes that are either idle or checked out."},
    {Py_tp_dealloc, block_dealloc},
    {Py_sq_length, block_length},
    {Py_bf_getbuffer, block_getbuffer},
    {0, NULL},
};

/* Not tracked by the garbage collector: see above. */
static PyType_Spec block_spec = {
    "aiopool._native._extension.Block", sizeof(BlockObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, block_slots,
};
