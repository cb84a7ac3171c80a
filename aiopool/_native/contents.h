/* The contents of a store: two generations of shards, and a set of counters for each processor. They are an object of
   their own, so that test isolation can set them aside and bring them back. */

#pragma once

#include "shards.h"

typedef struct {
    PyObject_HEAD
    SHARED(ShardsObject *) primary; /* never NULL */
    SHARED(ShardsObject *) victim;  /* or NULL */
    PyObject *counters;             /* a dict, by processor id; entries are never removed */
    CountersObject *off_loop;       /* the one for id 0, borrowed; NULL: there is none yet. Guarded by the lock */
    Count cycles;
    double since; /* when the primary was last replaced, or began to fill. Guarded by the lock */
    void *owner;  /* the store that they belong to, whose lock guards them; only compared, never dereferenced */
} ContentsObject;

static ContentsObject *
contents_make(State *state, void *owner)
{
    ContentsObject *self = (ContentsObject *)state->contents_type->tp_alloc(state->contents_type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->primary = shards_make(state);
    self->counters = PyDict_New();
    self->since = monotonic();
    self->owner = owner;
    if (self->primary == NULL || self->counters == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

/* Whether either generation has shards. Call with the store's lock held. */
static bool
contents_have_shards(const ContentsObject *self)
{
    const ShardsObject *victim = self->victim;
    return self->primary->end > 0 || (victim != NULL && victim->end > 0);
}

static int
contents_traverse(ContentsObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->counters);
    Py_VISIT((PyObject *)self->primary);
    Py_VISIT((PyObject *)self->victim);
    return 0;
}

static void
contents_dealloc(ContentsObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF((PyObject *)self->primary);
    Py_XDECREF((PyObject *)self->victim);
    Py_XDECREF(self->counters);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot contents_slots[] = {
    {Py_tp_doc, "A store's shards and counters."},
    {Py_tp_dealloc, contents_dealloc},
    {Py_tp_traverse, contents_traverse},
    {0, NULL},
};

static PyType_Spec contents_spec = {
    "aiopool._native._extension.Contents", sizeof(ContentsObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, contents_slots,
};
