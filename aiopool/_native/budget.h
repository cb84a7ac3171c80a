/* Beside _core/idle_budget.py: how many bytes a buffer pool may keep idle.

   Without a GIL, a number that every put and every take writes would hold up all processors. So each processor has an
   allowance: bytes that are counted as used, and that only this processor may fill with idle blocks. Taking an idle
   block adds to it, and putting a block uses it up. At most a small fraction of the limit stays with a processor, so
   that little is lost to processors that have nothing to keep.

   What a block that does not fit displaces is in displacement.h. */

#pragma once

#include "per_processor.h"

enum { ALLOWANCE_FRACTION = 256 };

typedef struct {
    PyObject_HEAD
    PyObject *stores; /* a tuple: where the blocks lie that are counted here */
    Count limit;
    PerProcessor in_use; /* bytes that are checked out */
#ifdef Py_GIL_DISABLED
    PerProcessor allowances;
#endif
    Number now; /* how many blocks were created: idle blocks are compared by it, see displacement.h */
    PADDING     /* what comes before is read with each acquire, and what follows is written by all processors */
    Count used;        /* bytes, allowances included; never more than the limit */
    Count peak_used;   /* the most bytes that were idle; without a GIL, the most that was seen */
    Count peak_in_use; /* the most bytes that were checked out; without a GIL, the most that was seen */
    Number oldest_since; /* none has been idle longer */
    Flag displacing;
} BudgetObject;

/* Without a GIL another thread may have seen more. */
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

/* Without a GIL nothing on a fast path can know the sum. So the peak is looked for when a block was created, for only
   that makes a pool larger, and when somebody asks. */
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
/* Reserve size bytes, which are more than the allowance; and with them, where the limit permits, enough for the next
   puts: otherwise a loop that drops many blocks in a row would write to the common number with each. allowance may be
   NULL. It is also here that the peak is looked for. */
static OUT_OF_LINE bool
budget_refill(BudgetObject *self, Count *allowance, long long size)
{
    long long missing = size - (allowance == NULL ? 0 : count_read(allowance));
    long long extra = count_read(&self->limit) / ALLOWANCE_FRACTION / 2;
    if (allowance == NULL || extra < size) {
        extra = 0; /* it would not do for a single block, and other processors could not use it */
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

/* The allowance has become too large: keep half of what may stay. */
static OUT_OF_LINE void
budget_shrink(BudgetObject *self, Count *allowance, long long allowed)
{
    long long kept = count_read(&self->limit) / ALLOWANCE_FRACTION / 2;
    budget_give_back_common(self, allowed - kept);
    count_write(allowance, kept);
}
#endif

/* Count size more idle bytes. False: the limit does not permit it. */
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

/* size bytes are no longer idle. */
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
        self->limit = overflow ? LLONG_MAX / 2 : Py_MIN(bytes, LLONG_MAX / 2); /* more than there can be */
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

/* In the child of a fork: a thread that held the lock is not there to release it. */
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
    {"close", (PyCFunction)budget_close, METH_NOARGS, "From now on nothing is kept."},
    {"renew_lock", (PyCFunction)budget_renew_lock, METH_NOARGS, "In the child of a fork."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef budget_getset[] = {
    {"used", (getter)budget_get_used, NULL, "Bytes that are idle now.", NULL},
    {"limit", (getter)budget_get_limit, NULL, "Bytes that may be idle.", NULL},
    {"peak_used", (getter)budget_get_peak_used, NULL, "The most bytes that were idle.", NULL},
    {"peak_in_use", (getter)budget_get_peak_in_use, NULL, "The most bytes that were checked out.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot budget_slots[] = {
    {Py_tp_doc, "Bytes that may lie idle."},
    {Py_tp_new, budget_new},
    {Py_tp_dealloc, budget_dealloc},
    {Py_tp_methods, budget_methods},
    {Py_tp_getset, budget_getset},
    {0, NULL},
};

static PyType_Spec budget_spec = {
    "aiopool._native._extension.IdleBudget", sizeof(BudgetObject), 0, Py_TPFLAGS_DEFAULT, budget_slots,
};
