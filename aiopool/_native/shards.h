/* A generation of shards, indexed by processor id; in _core/store.py this is a dict. Ids are small and dense, so
   here it is an array, in pieces that never move, because other threads read it while one adds a shard. */

#pragma once

#include "processor.h"
#include "shard.h"

enum { PIECE = 16 };

typedef struct Piece {
    SHARED(ShardObject *) shards[PIECE];
    SHARED(struct Piece *) next;
} Piece;

typedef struct {
    PyObject_HEAD
    uint64_t number; /* no other generation in this interpreter has it, or ever had */
    Piece first;
    Py_ssize_t freed; /* how many ids free_newest has finished */
    SHARED(Py_ssize_t) end; /* all shards have smaller ids */
} ShardsObject;

static ShardsObject *
shards_make(State *state)
{
    ShardsObject *self = (ShardsObject *)state->shards_type->tp_alloc(state->shards_type, 0);
    if (self != NULL) {
        self->number = ++state->generations;
    }
    return self;
}

/* The slot for the shard of that id; NULL if there is no piece for it yet. */
static inline SHARED(ShardObject *) *
shards_slot(ShardsObject *self, Py_ssize_t id)
{
    Piece *piece = &self->first;
    for (; id >= PIECE && piece != NULL; id -= PIECE) {
        piece = piece->next;
    }
    return piece == NULL ? NULL : &piece->shards[id];
}

static inline ShardObject *
shards_at(ShardsObject *self, Py_ssize_t id)
{
    SHARED(ShardObject *) *slot = self == NULL ? NULL : shards_slot(self, id);
    return slot == NULL ? NULL : *slot;
}

/* Make room for that id. Call with the store's lock held: this allocates, but runs no Python code. Returns false if
   there is no memory. */
static bool
shards_reserve(ShardsObject *self, Py_ssize_t id)
{
    Piece *piece = &self->first;
    for (; id >= PIECE; id -= PIECE) {
        if (piece->next == NULL) {
            Piece *next = PyMem_RawCalloc(1, sizeof(Piece));
            if (next == NULL) {
                return false;
            }
            piece->next = next;
        }
        piece = piece->next;
    }
    return true;
}

static Py_ssize_t
shards_idle(ShardsObject *self)
{
    Py_ssize_t idle = 0;
    for (Py_ssize_t id = 0; self != NULL && id < self->end; id++) {
        ShardObject *shard = shards_at(self, id);
        idle += shard == NULL ? 0 : shard_length(shard);
    }
    return idle;
}

/* Take the oldest object of the first shard that has one, starting after id and wrapping around. */
static PyObject *
shards_steal(ShardsObject *self, Py_ssize_t id)
{
    Py_ssize_t end = self == NULL ? 0 : self->end;
    for (Py_ssize_t i = 1; i <= end; i++) {
        ShardObject *shard = shards_at(self, (id + i) % end);
        PyObject *obj = shard == NULL ? NULL : shard_pop(shard, ring_pop_oldest);
        if (obj != NULL) {
            return obj;
        }
    }
    return NULL;
}

static int
shards_traverse(ShardsObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    for (Piece *piece = &self->first; piece != NULL; piece = piece->next) {
        for (int i = 0; i < PIECE; i++) {
            ShardObject *shard = piece->shards[i];
            Py_VISIT(shard);
        }
    }
    return 0;
}

/* The shards are emptied but not freed: a processor may remember one, and the finalizer of an object may call get. */
static int
shards_clear(ShardsObject *self)
{
    for (Py_ssize_t id = 0; id < self->end; id++) {
        ShardObject *shard = shards_at(self, id);
        if (shard != NULL) {
            shard_clear(shard);
        }
    }
    return 0;
}

static void
shards_dealloc(ShardsObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    for (Piece *piece = &self->first; piece != NULL;) {
        for (int i = 0; i < PIECE; i++) {
            ShardObject *shard = piece->shards[i];
            piece->shards[i] = NULL;
            Py_XDECREF(shard);
        }
        Piece *next = piece->next;
        if (piece != &self->first) {
            PyMem_RawFree(piece);
        }
        piece = next;
    }
    type->tp_free(self);
    Py_DECREF(type);
}

/* For a retired generation: see Shard.free_newest. */
static PyObject *
shards_free_newest(ShardsObject *self, PyObject *Py_UNUSED(ignored))
{
    for (; self->freed < self->end; self->freed++) {
        ShardObject *shard = shards_at(self, self->freed);
        if (shard != NULL && shard_free_one(shard)) {
            Py_RETURN_TRUE;
        }
    }
    Py_RETURN_FALSE;
}

static Py_ssize_t
shards_length(ShardsObject *self)
{
    return shards_idle(self);
}

static PyMethodDef shards_methods[] = {
    {"free_newest", (PyCFunction)shards_free_newest, METH_NOARGS, "Free one object; False if there is none."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot shards_slots[] = {
    {Py_tp_doc, "A generation of shards."},
    {Py_tp_dealloc, shards_dealloc},
    {Py_tp_traverse, shards_traverse},
    {Py_tp_clear, shards_clear},
    {Py_tp_methods, shards_methods},
    {Py_sq_length, shards_length},
    {0, NULL},
};

static PyType_Spec shards_spec = {
    "aiopool._native._extension.Shards", sizeof(ShardsObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, shards_slots,
};
