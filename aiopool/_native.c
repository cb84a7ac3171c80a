/* The compiled twin of the hot path: pin, the shard, and the usual case of get and put.

   It does what _processor.py, _shard.py and _pool.py do, in their order and with their words, and gives the same
   answers; they are the reference, and the place to read first. Whatever is unusual (a first pin in a context, a miss, a
   steal, the victim, reset, max_idle) is left to the Python code, which works on these types as on its own.

   Where the speed comes from:
   - a pin is cached for each thread together with the version of the thread's context. CPython changes the version
     whenever another context becomes the current one, so as long as it is the same, the ContextVar need not be asked;
   - a processor remembers the shards that it used last, by the generation of the primary shards that they belong to.

   With a GIL nothing else runs while we are in here, and no lock is needed: every function below finishes its work on
   a shard before it calls anything that can run Python code. Without a GIL there are two dangers. Stealers reach the
   shared list: it has a lock, held for a few instructions in which no Python code runs and no object dies. And
   another thread may drop a shard that its owner is just using: see "busy".

   Each subject has a file, as on the Python side: _native_processor.h, _native_shard.h, _native_pool.h,
   _native_borrow.h, _native_buffers.h and _native_low_water.h, on top of _native_state.h. They are headers, and this is
   the one file that is compiled, so that the compiler sees the hot path whole. */

#include "_native_borrow.h"
#include "_native_buffers.h"
#include "_native_low_water.h"

/* Which ContextVar carries the processor. */
static PyObject *
bind_pins_to(PyObject *module, PyObject *variable)
{
    State *state = PyModule_GetState(module);
    if (!PyContextVar_CheckExact(variable)) {
        return PyErr_Format(PyExc_TypeError, "bind_pins_to() takes a ContextVar, not %.80R", variable);
    }
    Py_XSETREF(state->pinned, Py_NewRef(variable));
    Py_RETURN_NONE;
}

static int
put_methods_on(PyTypeObject *type, PyMethodDef *methods)
{
    for (PyMethodDef *method = methods; method->ml_name != NULL; method++) {
        PyObject *descriptor = PyDescr_NewMethod(type, method);
        if (descriptor == NULL) {
            return -1;
        }
        int failed = PyObject_SetAttrString((PyObject *)type, method->ml_name, descriptor);
        Py_DECREF(descriptor);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

/* Put our methods on the class itself, in the place of its own. Inherited from the base they would be slower: CPython's
   shortcut for calls of C methods wants them to be of the very type of the object. */
static PyObject *
speed_up(PyObject *module, PyObject *arg)
{
    State *state = PyModule_GetState(module);
    PyTypeObject *type = (PyTypeObject *)arg;
    int failed;
    if (PyType_Check(arg) && PyType_IsSubtype(type, state->pool_type)) {
        Py_XSETREF(state->public_type, (PyTypeObject *)Py_NewRef(type));
        failed = put_methods_on(type, pool_methods);
    }
    else if (PyType_Check(arg) && PyType_IsSubtype(type, state->buffers_type)) {
        failed = put_methods_on(type, buffers_methods);
    }
    else {
        return PyErr_Format(PyExc_TypeError, "speed_up() takes a subclass of Base or Buffers, not %.80R", arg);
    }
    if (failed) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef native_methods[] = {
    {"bind_pins_to", bind_pins_to, METH_O, "Tell which ContextVar carries the processor."},
    {"forget_pin", forget_pin, METH_NOARGS, "Ask the ContextVar anew at this thread's next pin."},
    {"quiesce", quiesce, METH_O, "Let each processor that is busy with a shard be done with it."},
    {"speed_up", speed_up, METH_O, "Give a subclass of Base or Buffers our methods."},
    LOW_WATER_METHODS
    {NULL, NULL, 0, NULL},
};

static int
add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type == NULL ? -1 : PyModule_AddType(module, *type);
}

static int
add_enter_and_exit(PyObject *module, PyTypeObject *type)
{
    PyObject *itself_type = PyType_FromModuleAndSpec(module, &itself_spec, NULL);
    PyObject *itself = itself_type == NULL ? NULL : PyObject_CallNoArgs(itself_type);
    int failed = itself == NULL || PyObject_SetAttrString((PyObject *)type, "__enter__", itself) < 0
                 || PyObject_SetAttrString((PyObject *)type, "__exit__", itself) < 0;
    Py_XDECREF(itself);
    Py_XDECREF(itself_type);
    return failed ? -1 : 0;
}

static int
native_exec(PyObject *module)
{
    static atomic_ullong last_serial;
    State *state = PyModule_GetState(module);
    state->serial = ++last_serial;
    if (add_type(module, &identity_spec, &state->identity_type) < 0
        || add_type(module, &tally_spec, &state->tally_type) < 0
        || add_type(module, &shard_spec, &state->shard_type) < 0
        || add_type(module, &pool_spec, &state->pool_type) < 0
        || add_type(module, &borrow_spec, &state->borrow_type) < 0
        || add_type(module, &ready_spec, &state->ready_type) < 0
        || add_type(module, &ledger_spec, &state->ledger_type) < 0
        || add_type(module, &size_class_spec, &state->size_class_type) < 0
        || add_type(module, &storage_spec, &state->storage_type) < 0
        || add_type(module, &buffers_spec, &state->buffers_type) < 0) {
        return -1;
    }
    if (add_enter_and_exit(module, state->borrow_type) < 0
        || PyModule_AddIntConstant(module, "source", AIOPOOL_SOURCE) < 0) {
        return -1;
    }
    state->get = PyUnicode_InternFromString("get");
    state->put = PyUnicode_InternFromString("put");
    state->get_slow = PyUnicode_InternFromString("_get_slow");
    state->put_slow = PyUnicode_InternFromString("_put_slow");
    state->abandon = PyUnicode_InternFromString("_abandon");
    state->acquire_slow = PyUnicode_InternFromString("_acquire_slow");
    return state->get && state->put && state->get_slow && state->put_slow && state->abandon && state->acquire_slow
               ? 0 : -1;
}

static int
native_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->identity_type);
    Py_VISIT(state->tally_type);
    Py_VISIT(state->shard_type);
    Py_VISIT(state->pool_type);
    Py_VISIT(state->borrow_type);
    Py_VISIT(state->ready_type);
    Py_VISIT(state->ledger_type);
    Py_VISIT(state->size_class_type);
    Py_VISIT(state->storage_type);
    Py_VISIT(state->buffers_type);
    Py_VISIT(state->public_type);
    Py_VISIT(state->pinned);
    return 0;
}

static int
native_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->pinned); /* first: from now on no borrow is kept */
    if (state->spare_borrow != NULL) {
        PyObject_GC_Del(state->spare_borrow); /* before its type */
        state->spare_borrow = NULL;
    }
    Py_CLEAR(state->identity_type);
    Py_CLEAR(state->tally_type);
    Py_CLEAR(state->shard_type);
    Py_CLEAR(state->pool_type);
    Py_CLEAR(state->borrow_type);
    Py_CLEAR(state->ready_type);
    Py_CLEAR(state->ledger_type);
    Py_CLEAR(state->size_class_type);
    Py_CLEAR(state->storage_type);
    Py_CLEAR(state->buffers_type);
    Py_CLEAR(state->public_type);
    Py_CLEAR(state->get);
    Py_CLEAR(state->put);
    Py_CLEAR(state->get_slow);
    Py_CLEAR(state->put_slow);
    Py_CLEAR(state->abandon);
    Py_CLEAR(state->acquire_slow);
    return 0;
}

static void
native_free(void *module)
{
    native_clear(module);
}

static PyModuleDef_Slot native_slots[] = {
    {Py_mod_exec, native_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef native_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "aiopool._native",
    .m_doc = "The compiled twin of the hot path.",
    .m_size = sizeof(State),
    .m_methods = native_methods,
    .m_slots = native_slots,
    .m_traverse = native_traverse,
    .m_clear = native_clear,
    .m_free = native_free,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&native_module);
}
