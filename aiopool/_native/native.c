/* The C extension: a faster version of _core/ for every path that a program takes in normal operation.

   Each header is the C version of a Python module, with the same structure and the same vocabulary, and gives the same
   answers. The Python code is the reference: read it first. Unusual cases (the first pin of a thread, loop-bound pools,
   the debug mode, wrong arguments) are left to the Python code, which uses these types like its own.

   The speed comes from three things:
   - a pin is cached for each thread, together with the version of the thread's context. CPython changes the version
     whenever another context becomes current, so while it is unchanged the ContextVar need not be read;
   - a processor remembers the shards that it used last, by the generation that they belong to;
   - without a GIL, nothing on a fast path writes to memory that another processor reads: no shared counter, and no
     reference count of a shared object.

   The headers, each of which uses only those before it: state.h, processor.h, shard.h, shards.h; contents.h, store.h,
   store_retire.h, store_type.h, bound_store.h; pool.h, borrow.h; per_processor.h, budget.h, memory.h, block.h,
   displacement.h, size_class.h, buffer_pool.h; receive_buffer.h, receive_buffer_type.h, receive_now.h, reader.h,
   read.h. Only this file is compiled, so that the compiler can inline the fast paths completely. */

#include "borrow.h"
#include "buffer_pool.h"
#include "read.h"
#include "receive_now.h"

/* Set the ContextVar that holds the processor, the dict of all processors, and the Python functions called from C. */
static PyObject *
native_bind(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"pinned", "pin", "processors", "watch", "check_time", "record_holder", NULL};
    State *state = PyModule_GetState(module);
    PyObject **places[] = {&state->pinned, &state->pin,        &state->processors,
                           &state->watch,  &state->check_time, &state->record_holder};
    PyObject *given[6] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOOOOO:bind", names, &given[0], &given[1], &given[2], &given[3],
                                     &given[4], &given[5])) {
        return NULL;
    }
    if (given[0] != NULL && !PyContextVar_CheckExact(given[0])) {
        return PyErr_Format(PyExc_TypeError, "pinned must be a ContextVar, not %.80R", given[0]);
    }
    if (given[2] != NULL && !PyDict_CheckExact(given[2])) {
        return PyErr_Format(PyExc_TypeError, "processors must be a dict, not %.80R", given[2]);
    }
    for (int i = 0; i < 6; i++) {
        if (given[i] != NULL) {
            Py_XSETREF(*places[i], Py_NewRef(given[i]));
        }
    }
    Py_RETURN_NONE;
}

static PyMethodDef *
methods_for(State *state, PyObject *class)
{
    if (PyType_Check(class) && PyType_IsSubtype((PyTypeObject *)class, state->pool_type)) {
        return pool_methods;
    }
    if (PyType_Check(class) && PyType_IsSubtype((PyTypeObject *)class, state->buffers_type)) {
        return buffers_methods;
    }
    if (PyType_Check(class) && PyType_IsSubtype((PyTypeObject *)class, state->reader_type)) {
        return reader_methods;
    }
    PyErr_Format(PyExc_TypeError, "%.80R is not a subclass of PoolBase, BufferPoolBase or ReaderBase", class);
    return NULL;
}

/* The names of the methods of a class that exist in C. */
static PyObject *
methods(PyObject *module, PyObject *class)
{
    PyMethodDef *method = methods_for(PyModule_GetState(module), class);
    PyObject *names = method == NULL ? NULL : PyList_New(0);
    for (; names != NULL && method->ml_name != NULL; method++) {
        PyObject *name = PyUnicode_FromString(method->ml_name);
        if (name == NULL || PyList_Append(names, name) < 0) {
            Py_CLEAR(names);
        }
        Py_XDECREF(name);
    }
    return names;
}

/* Return a descriptor of a class's C method, with a docstring that begins with its signature. All copies of the package
   in a process have the same docstring, so the first is kept for all of them, and never freed. */
static PyObject *
method_descriptor(PyObject *module, PyObject *args)
{
    State *state = PyModule_GetState(module);
    PyObject *class;
    const char *name, *text;
    if (!PyArg_ParseTuple(args, "Oss:method_descriptor", &class, &name, &text)) {
        return NULL;
    }
    PyMethodDef *method = methods_for(state, class);
    while (method != NULL && method->ml_name != NULL && strcmp(method->ml_name, name) != 0) {
        method++;
    }
    if (method == NULL || method->ml_name == NULL) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "%.80R has no C method %s", class, name);
    }
    if (method->ml_doc == NULL) {
        char *copy = PyMem_RawMalloc(strlen(text) + 1);
        if (copy == NULL) {
            return PyErr_NoMemory();
        }
        method->ml_doc = strcpy(copy, text);
    }
    if (method == pool_methods) {
        Py_XSETREF(state->public_type, (PyTypeObject *)Py_NewRef(class));
    }
    return PyDescr_NewMethod((PyTypeObject *)class, method);
}

static PyObject *
defer_counting(PyObject *Py_UNUSED(module), PyObject *object)
{
    defer_reference_counting(object);
    Py_RETURN_NONE;
}

static PyMethodDef native_methods[] = {
    {"bind", (PyCFunction)(void (*)(void))native_bind, METH_VARARGS | METH_KEYWORDS,
     "Set the Python objects that are used from C."},
    {"defer_reference_counting", defer_counting, METH_O, "Let all threads use an object without writing to it."},
    {"quiesce", quiesce, METH_NOARGS, "Wait until each processor that is busy with a shard has finished."},
#ifdef Py_GIL_DISABLED
    {"drop_spare_borrows", drop_spare_borrows, METH_O, "Drop the spare borrows of processors, which hold pools."},
#endif
    {"set_receive_sizes", set_receive_sizes, METH_VARARGS, "Set the sizes of chunks and messages."},
    {"set_reader_sizes", set_reader_sizes, METH_VARARGS, "Set how many bytes a reader receives at a time."},
    RECEIVE_NOW_METHODS
    {"methods", methods, METH_O, "The names of the methods of a class that exist in C."},
    {"method_descriptor", method_descriptor, METH_VARARGS, "Return a descriptor of a class's C method."},
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
    if (itself != NULL) {
        defer_reference_counting(itself);
    }
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
        || add_type(module, &counters_spec, &state->counters_type) < 0
        || add_type(module, &shard_spec, &state->shard_type) < 0
        || add_type(module, &shards_spec, &state->shards_type) < 0
        || add_type(module, &contents_spec, &state->contents_type) < 0
        || add_type(module, &store_spec, &state->store_type) < 0
        || add_type(module, &bound_store_spec, &state->bound_store_type) < 0
        || add_type(module, &pool_spec, &state->pool_type) < 0
        || add_type(module, &borrow_spec, &state->borrow_type) < 0
        || add_type(module, &ready_spec, &state->ready_type) < 0
        || add_type(module, &budget_spec, &state->budget_type) < 0
        || add_type(module, &size_class_spec, &state->size_class_type) < 0
        || add_type(module, &block_spec, &state->block_type) < 0
        || add_type(module, &buffers_spec, &state->buffers_type) < 0
        || add_type(module, &receive_buffer_spec, &state->receive_buffer_type) < 0
        || add_type(module, &reader_spec, &state->reader_type) < 0
        || add_type(module, &read_spec, &state->read_type) < 0) {
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
    state->accepts = PyUnicode_InternFromString("_accepts");
    state->trio = PyUnicode_InternFromString("trio.lowlevel");
    state->abandon = PyUnicode_InternFromString("_abandon");
    state->acquire_slow = PyUnicode_InternFromString("_acquire_slow");
    state->acquire = PyUnicode_InternFromString("acquire");
    state->spare_stop = PyObject_CallNoArgs(PyExc_StopIteration);
    if (state->spare_stop == NULL) {
        return -1;
    }
    state->max_size = PyUnicode_InternFromString("max_size");
    for (int i = 0; i < READS; i++) {
        state->slow_reads[i] = PyUnicode_InternFromString(slow_read_names[i]);
        if (state->slow_reads[i] == NULL) {
            return -1;
        }
    }
    for (int i = 0; i < READER_CALLS; i++) {
        state->reader_calls[i] = PyUnicode_InternFromString(reader_call_names[i]);
        if (state->reader_calls[i] == NULL) {
            return -1;
        }
    }
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    state->get_running_loop = asyncio == NULL ? NULL : PyObject_GetAttrString(asyncio, "_get_running_loop");
    Py_XDECREF(asyncio);
    return state->get && state->put && state->get_slow && state->put_slow && state->accepts && state->trio
               && state->abandon && state->acquire_slow && state->acquire && state->max_size && state->get_running_loop
               ? 0 : -1;
}

static int
native_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->identity_type);
    Py_VISIT(state->counters_type);
    Py_VISIT(state->shard_type);
    Py_VISIT(state->shards_type);
    Py_VISIT(state->contents_type);
    Py_VISIT(state->store_type);
    Py_VISIT(state->bound_store_type);
    Py_VISIT(state->pool_type);
    Py_VISIT(state->borrow_type);
    Py_VISIT(state->ready_type);
    Py_VISIT(state->budget_type);
    Py_VISIT(state->size_class_type);
    Py_VISIT(state->block_type);
    Py_VISIT(state->buffers_type);
    Py_VISIT(state->receive_buffer_type);
    Py_VISIT(state->reader_type);
    Py_VISIT(state->read_type);
    Py_VISIT(state->public_type);
    Py_VISIT(state->pinned);
    Py_VISIT(state->pin);
    Py_VISIT(state->processors);
    Py_VISIT(state->watch);
    Py_VISIT(state->check_time);
    Py_VISIT(state->record_holder);
    Py_VISIT(state->get_running_loop);
    Py_VISIT(state->spare_stop);
    return 0;
}

static int
native_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->pinned); /* first, because this stops borrows from being kept */
    if (state->spare_borrow != NULL) {
        PyObject_GC_Del(state->spare_borrow); /* before its type */
        state->spare_borrow = NULL;
    }
    drop_spare_read(state); /* before its type */
    Py_CLEAR(state->identity_type);
    Py_CLEAR(state->counters_type);
    Py_CLEAR(state->shard_type);
    Py_CLEAR(state->shards_type);
    Py_CLEAR(state->contents_type);
    Py_CLEAR(state->store_type);
    Py_CLEAR(state->bound_store_type);
    Py_CLEAR(state->pool_type);
    Py_CLEAR(state->borrow_type);
    Py_CLEAR(state->ready_type);
    Py_CLEAR(state->budget_type);
    Py_CLEAR(state->size_class_type);
    Py_CLEAR(state->block_type);
    Py_CLEAR(state->buffers_type);
    Py_CLEAR(state->receive_buffer_type);
    Py_CLEAR(state->reader_type);
    Py_CLEAR(state->read_type);
    Py_CLEAR(state->public_type);
    Py_CLEAR(state->pin);
    Py_CLEAR(state->processors);
    Py_CLEAR(state->watch);
    Py_CLEAR(state->check_time);
    Py_CLEAR(state->record_holder);
    Py_CLEAR(state->get_running_loop);
    Py_CLEAR(state->get);
    Py_CLEAR(state->put);
    Py_CLEAR(state->get_slow);
    Py_CLEAR(state->put_slow);
    Py_CLEAR(state->accepts);
    Py_CLEAR(state->trio);
    Py_CLEAR(state->abandon);
    Py_CLEAR(state->acquire_slow);
    Py_CLEAR(state->spare_stop);
    Py_CLEAR(state->acquire);
    Py_CLEAR(state->max_size);
    for (int i = 0; i < READS; i++) {
        Py_CLEAR(state->slow_reads[i]);
    }
    for (int i = 0; i < READER_CALLS; i++) {
        Py_CLEAR(state->reader_calls[i]);
    }
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
    .m_name = "aiopool._native._extension",
    .m_doc = "The C extension of aiopool.",
    .m_size = sizeof(State),
    .m_methods = native_methods,
    .m_slots = native_slots,
    .m_traverse = native_traverse,
    .m_clear = native_clear,
    .m_free = native_free,
};

PyMODINIT_FUNC
PyInit__extension(void)
{
    return PyModuleDef_Init(&native_module);
}
