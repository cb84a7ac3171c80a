/* The C version of _core/idle_budget.py: the budget of idle bytes of one buffer pool.

   Without a GIL, a number that every put and every take writes would slow down all processors. So each processor has an
   allowance: bytes that are counted as used, and that only this processor may fill with idle blocks. Taking an idle
   block adds to the allowance, and putting a block uses it. A processor keeps at most a small fraction of the limit, so
   that processors with nothing to keep do not hold much of it.

   displacement.h deals with blocks that do not fit. */

#pragma once

#include "per_processor.h"

enum { ALLOWANCE_FRACTION = 256 };

typedef struct {
    PyObject_HEAD
    PyObject *stores; /* a tuple of the stores whose blocks are counted here */
    Count limit;
    PerProcessor in_use; /* bytes that are checked out */
#ifdef Py_GIL_DISABLED
    PerProcessor allowances;
#endif
    Number now; /* how many blocks were created; serves as the time at which a block becomes idle */
    PADDING     /* the fields above are read by each acquire, and those below are written by all processors */
    Count used;        /* bytes, including allowances; never more than the limit */
    Count peak_used;   /* the most bytes that were idle at once; without a GIL, the most that was noticed */
    Count peak_in_use; /* the most bytes that were checked out at once; without a GIL, the most that was noticed */
    Number oldest_since; /* no block has been idle since before this */
    Flag displacing;
} BudgetObject;

/* Raise a peak to value, unless another thread has already recorded a higher one. */
static void
note_peak(Count *peak, long long value)
{
#ifdef Py_GIL_DISABLED
    long long known = count_read(peak);
    while (value > known && !atomic_compare_exchange_weak(peak, &known, value)) {
    }
#else
    if (value > *peak) {
        *peak = value;
    }
#endif
}

static inline void
budget_count_checked_out(BudgetObject *self, const IdentityObject *processor, long long size)
{
    per_processor_add(&self->in_use, processor, size);
#ifndef Py_GIL_DISABLED
    note_peak(&self->peak_in_use, self->in_use.value);
#endif
}

static inline void
budget_count_back(BudgetObject *self, const IdentityObject *processor, long long size)
{
    per_processor_add(&self->in_use, processor, -size);
}

/* Without a GIL no fast path can know the sum. So the peak is updated when a block was created, because only that makes
   a pool grow, and when the peak is read. */
static void
budget_look_for_peak(BudgetObject *self)
{
    note_peak(&self->peak_in_use, per_processor_sum(&self->in_use));
}

static bool
budget_reserve_common(BudgetObject *self, long long size)
{
    long long used = count_read(&self->used);
#ifdef Py_GIL_DISABLED
    do {
        if (used + size > count_read(&self->limit)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(&self->used, &used, used + size));
#else
    if (used + size > self->limit) {
        return false;
    }
    self->used = used + size;
    note_peak(&self->peak_used, self->used);
#endif
    return true;
}

static void
budget_give_back_common(BudgetObject *self, long long size)
{
#ifdef Py_GIL_DISABLED
    atomic_fetch_sub(&self->used, size);
#else
    self->used -= size;
#endif
}

static long long
budget_idle(BudgetObject *self)
{
    long long used = count_read(&self->used);
#ifdef Py_GIL_DISABLED
    used -= per_processor_sum(&self->allowances);
#endif
    return used;
}

#ifdef Py_GIL_DISABLED
/* Reserve size bytes, which are more than the allowance, and if the limit permits it, enough for the next puts;
   otherwise a loop that drops many blocks in a row would write to the common number for each. This also updates the
   peak. allowance may be NULL. */
static OUT_OF_LINE bool
budget_refill(BudgetObject *self, Count *allowance, long long size)
{
    long long missing = size - (allowance == NULL ? 0 : count_read(allowance));
    long long extra = count_read(&self->limit) / ALLOWANCE_FRACTION / 2;
    if (allowance == NULL || extra < size) {
        extra = 0; /* it would not be enough for a single block, and other processors could not use it */
    }
    if (!budget_reserve_common(self, missing + extra)) {
        extra = 0;
        if (!budget_reserve_common(self, missing)) {
            return false;
        }
    }
    if (allowance != NULL) {
        count_write(allowance, extra);
    }
    note_peak(&self->peak_used, budget_idle(self));
    return true;
}

/* Reduce an allowance that has become too large to half of its maximum. */
static OUT_OF_LINE void
budget_shrink(BudgetObject *self, Count *allowance, long long allowed)
{
    long long kept = count_read(&self->limit) / ALLOWANCE_FRACTION / 2;
    budget_give_back_common(self, allowed - kept);
    count_write(allowance, kept);
}
#endif

/* Count size more idle bytes. Returns false, and counts nothing, if that would exceed the limit. */
static inline bool
budget_reserve(BudgetObject *self, const IdentityObject *processor, long long size)
{
#ifdef Py_GIL_DISABLED
    Count *allowance = processor == NULL ? NULL : per_processor_entry(&self->allowances, processor);
    long long allowed = allowance == NULL ? 0 : count_read(allowance);
    if (allowed < size || count_read(&self->limit) == 0) {
        return budget_refill(self, allowance, size);
    }
    count_write(allowance, allowed - size);
    return true;
#else
    (void)processor;
    return budget_reserve_common(self, size);
#endif
}

/* Count size fewer idle bytes. */
static inline void
budget_give_back(BudgetObject *self, const IdentityObject *processor, long long size)
{
#ifdef Py_GIL_DISABLED
    Count *allowance = processor == NULL ? NULL : per_processor_entry(&self->allowances, processor);
    if (allowance != NULL) {
        long long allowed = count_read(allowance) + size;
        if (allowed <= count_read(&self->limit) / ALLOWANCE_FRACTION) {
            count_write(allowance, allowed);
        }
        else {
            budget_shrink(self, allowance, allowed);
        }
        return;
    }
#else
    (void)processor;
#endif
    budget_give_back_common(self, size);
}

static PyObject *
budget_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"limit", "stores", NULL};
    State *state = state_of(type);
    PyObject *limit, *stores;
    if (state == NULL
        || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!:IdleBudget", names, &PyLong_Type, &limit, &PyTuple_Type,
                                        &stores)) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(stores); i++) {
        if (!Py_IS_TYPE(PyTuple_GET_ITEM(stores, i), state->store_type)) {
            return PyErr_Format(PyExc_TypeError, "stores must be a tuple of stores, not %.80R", stores);
        }
    }
    int overflow;
    long long bytes = PyLong_AsLongLongAndOverflow(limit, &overflow);
    if (overflow < 0 || (overflow == 0 && bytes < 0)) {
        return PyErr_Format(PyExc_ValueError, "limit must not be negative, but is %R", limit);
    }
    BudgetObject *self = (BudgetObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->limit = overflow ? LLONG_MAX / 2 : Py_MIN(bytes, LLONG_MAX / 2); /* more than any machine has */
        self->stores = Py_NewRef(stores);
    }
    return (PyObject *)self;
}

static void
budget_dealloc(BudgetObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
#ifdef Py_GIL_DISABLED
    per_processor_free(&self->allowances);
#endif
    per_processor_free(&self->in_use);
    Py_XDECREF(self->stores);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
budget_close(BudgetObject *self, PyObject *Py_UNUSED(ignored))
{
    count_write(&self->limit, 0);
    Py_RETURN_NONE;
}

/* In the child of a fork: release the lock, because a thread that held it is gone. */
static PyObject *
budget_renew_lock(BudgetObject *self, PyObject *Py_UNUSED(ignored))
{
    lock_release(&self->displacing);
    Py_RETURN_NONE;
}

static PyObject *
budget_get_used(BudgetObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(budget_idle(self));
}

static PyObject *
budget_get_limit(BudgetObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(count_read(&self->limit));
}

static PyObject *
budget_get_peak_used(BudgetObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(count_read(&self->peak_used));
}

static PyObject *
budget_get_peak_in_use(BudgetObject *self, void *Py_UNUSED(closure))
{
    budget_look_for_peak(self);
    return PyLong_FromLongLong(count_read(&self->peak_in_use));
}

static PyMethodDef budget_methods[] = {
    {"close", (PyCFunction)budget_close, METH_NOARGS, "Reject every block from now on."},
    {"renew_lock", (PyCFunction)budget_renew_lock, METH_NOARGS, "In the child of a fork: release the lock."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef budget_getset[] = {
    {"used", (getter)budget_get_used, NULL, "Bytes that are idle now.", NULL},
    {"limit", (getter)budget_get_limit, NULL, "Bytes that may be idle.", NULL},
    {"peak_used", (getter)budget_get_peak_used, NULL, "The most bytes that were idle at once.", NULL},
    {"peak_in_use", (getter)budget_get_peak_in_use, NULL, "The most bytes that were checked out at once.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot budget_slots[] = {
    {Py_tp_doc, "Bytes that may be kept idle."},
    {Py_tp_new, budget_new},
    {Py_tp_dealloc, budget_dealloc},
    {Py_tp_methods, budget_methods},
    {Py_tp_getset, budget_getset},
    {0, NULL},
};

static PyType_Spec budget_spec = {
    "aiopool._native._extension.IdleBudget", sizeof(BudgetObject), 0, Py_TPFLAGS_DEFAULT, budget_slots,
};
