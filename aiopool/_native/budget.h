/* Beside _core/idle_budget.py: how many bytes a buffer pool may keep idle.

   Without a GIL a number that every put and every take writes would hold up all processors. So each has an allowance:
   bytes that are counted as used, but with which only this processor may keep blocks. Taking an idle block adds to it,
   and putting a block uses it up. What is more than a fraction of the limit goes back to the budget, so that little lies
   with processors that have nothing to keep. */

#pragma once

#include "per_processor.h"

enum { ALLOWANCE_FRACTION = 256 };

typedef struct {
    PyObject_HEAD
    Count limit;
    Count used; /* bytes, allowances included; never more than the limit */
#ifdef Py_GIL_DISABLED
    PerProcessor allowances;
#endif
} BudgetObject;

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

/* Count size more idle bytes. False: there may not be as many. */
static inline bool
budget_reserve(BudgetObject *self, const IdentityObject *processor, long long size)
{
#ifdef Py_GIL_DISABLED
    Count *allowance = processor == NULL ? NULL : per_processor_entry(&self->allowances, processor);
    long long allowed = allowance == NULL ? 0 : count_read(allowance);
    if (allowed > 0 && count_read(&self->limit) > 0) {
        long long missing = size > allowed ? size - allowed : 0;
        if (missing > 0 && !budget_reserve_common(self, missing)) {
            return false;
        }
        count_write(allowance, allowed - (size - missing));
        return true;
    }
#else
    (void)processor;
#endif
    return budget_reserve_common(self, size);
}

/* size bytes are idle no more. */
static inline void
budget_give_back(BudgetObject *self, const IdentityObject *processor, long long size)
{
#ifdef Py_GIL_DISABLED
    Count *allowance = processor == NULL ? NULL : per_processor_entry(&self->allowances, processor);
    if (allowance != NULL) {
        long long allowed = count_read(allowance) + size;
        if (allowed <= count_read(&self->limit) / ALLOWANCE_FRACTION) {
            count_write(allowance, allowed);
            return;
        }
    }
#else
    (void)processor;
#endif
    budget_give_back_common(self, size);
}

static PyObject *
budget_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"limit", NULL};
    PyObject *limit;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!:IdleBudget", names, &PyLong_Type, &limit)) {
        return NULL;
    }
    int overflow;
    long long bytes = PyLong_AsLongLongAndOverflow(limit, &overflow);
    if (overflow < 0 || (overflow == 0 && bytes < 0)) {
        return PyErr_Format(PyExc_ValueError, "limit must not be negative, but is %R", limit);
    }
    BudgetObject *self = (BudgetObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->limit = overflow ? LLONG_MAX / 2 : Py_MIN(bytes, LLONG_MAX / 2); /* more than there can be */
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
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
budget_close(BudgetObject *self, PyObject *Py_UNUSED(ignored))
{
    count_write(&self->limit, 0);
    Py_RETURN_NONE;
}

static PyObject *
budget_get_used(BudgetObject *self, void *Py_UNUSED(closure))
{
    long long used = count_read(&self->used);
#ifdef Py_GIL_DISABLED
    used -= per_processor_sum(&self->allowances);
#endif
    return PyLong_FromLongLong(used);
}

static PyObject *
budget_get_limit(BudgetObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(count_read(&self->limit));
}

static PyMethodDef budget_methods[] = {
    {"close", (PyCFunction)budget_close, METH_NOARGS, "From now on nothing is kept."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef budget_getset[] = {
    {"used", (getter)budget_get_used, NULL, "Bytes that are idle now.", NULL},
    {"limit", (getter)budget_get_limit, NULL, "Bytes that may be idle.", NULL},
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
