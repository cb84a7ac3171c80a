/* The base of all other headers: differences between versions and builds of Python, and the module state. */

#pragma once

#include <Python.h>
#include <structmember.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* --- differences between versions and builds --- */

#ifdef Py_GIL_DISABLED
typedef atomic_int Flag;
typedef _Atomic(uint64_t) Number;
typedef _Atomic(unsigned long) Ident;
typedef _Atomic(long long) Count;
#define SHARED(type) _Atomic(type)
#else
typedef int Flag;
typedef uint64_t Number;
typedef unsigned long Ident;
typedef long long Count;
#define SHARED(type) type
#endif

#ifndef Py_BEGIN_CRITICAL_SECTION /* up to 3.12, where the GIL is enough */
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

#ifdef _MSC_VER
#define THREAD_LOCAL __declspec(thread)
#else
#define THREAD_LOCAL _Thread_local
#endif

/* For functions for unusual cases, which would make the fast path longer if they were inlined. */
#if defined(__GNUC__) || defined(__clang__)
#define OUT_OF_LINE __attribute__((noinline))
#else
#define OUT_OF_LINE
#endif

static inline bool
is_finalizing(void)
{
#if PY_VERSION_HEX >= 0x030d0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

/* Goes at the end of objects that one processor writes all the time, so that whatever the allocator puts behind them is
   on another cache line. Otherwise two processors that write to adjacent objects slow each other down as if they shared
   one (false sharing). */
#ifdef Py_GIL_DISABLED
#define CACHE_LINE 64
#define PADDING char padding[CACHE_LINE];
#else
#define PADDING
#endif

/* A count has one writer and many readers, which may see changes late. */
static inline long long
count_read(const Count *count)
{
#ifdef Py_GIL_DISABLED
    return atomic_load_explicit(count, memory_order_relaxed);
#else
    return *count;
#endif
}

static inline void
count_write(Count *count, long long value)
{
#ifdef Py_GIL_DISABLED
    atomic_store_explicit(count, value, memory_order_relaxed);
#else
    *count = value;
#endif
}

static inline void
count_add(Count *count, long long more)
{
    count_write(count, count_read(count) + more);
}

/* In seconds of time.monotonic(). */
static inline double
monotonic(void)
{
#if PY_VERSION_HEX >= 0x030d0000
    PyTime_t now;
    return PyTime_MonotonicRaw(&now) < 0 ? 0.0 : PyTime_AsSecondsDouble(now);
#else
    return _PyTime_AsSecondsDouble(_PyTime_GetMonotonicClock());
#endif
}

/* As monotonic(), but accurate to a few milliseconds and much cheaper. Never ahead of it. */
static inline double
coarse_monotonic(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC_COARSE, &now) == 0) {
        return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    }
#endif
    return monotonic();
}

/* Without a GIL all threads that use an object write to its reference count. With deferred reference counting none
   does, and the object is freed by a garbage collection. */
static inline void
defer_reference_counting(PyObject *object)
{
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030e0000
    PyUnstable_Object_EnableDeferredRefcount(object);
#else
    (void)object;
#endif
}

/* The value of a key: a new reference. Returns NULL if there is none; with an exception set, if the lookup raised. */
static PyObject *
dict_get(PyObject *dict, PyObject *key)
{
#if PY_VERSION_HEX >= 0x030d0000
    PyObject *value;
    PyDict_GetItemRef(dict, key, &value);
    return value;
#else
    return Py_XNewRef(PyDict_GetItemWithError(dict, key));
#endif
}

/* Try to take a lock; with a GIL it is always free. Its holder runs no Python code and frees nothing. */
static inline bool
lock_try(Flag *lock)
{
#ifdef Py_GIL_DISABLED
    int unlocked = 0;
    return atomic_compare_exchange_strong(lock, &unlocked, 1);
#else
    (void)lock;
    return true;
#endif
}

/* Wait for a lock; only for code that cannot do without it. The holder needs only a few instructions, unless the system
   has descheduled it. Therefore this detaches the thread from time to time: a garbage collection, which stops all
   threads, does not wait for it. */
static inline void
lock_wait(Flag *lock)
{
    for (int spins = 1; !lock_try(lock); spins++) {
        if (spins % 1024 == 0) {
            Py_BEGIN_ALLOW_THREADS
            Py_END_ALLOW_THREADS
        }
    }
}

#ifdef Py_GIL_DISABLED
/* Wait until the lock has been free at least once, without taking it. Returns whether critical sections of this thread
   were suspended meanwhile. */
static inline bool
lock_wait_for(Flag *lock)
{
    bool suspended = false;
    for (unsigned spins = 1; atomic_load(lock); spins++) {
        if (spins % 1024 == 0) {
            suspended = true;
            Py_BEGIN_ALLOW_THREADS
            Py_END_ALLOW_THREADS
        }
    }
    return suspended;
}
#endif

static inline void
lock_release(Flag *lock)
{
#ifdef Py_GIL_DISABLED
    atomic_store_explicit(lock, 0, memory_order_release);
#else
    (void)lock;
#endif
}

#ifndef AIOPOOL_SOURCE /* a checksum of all C files, set by setup.py */
#define AIOPOOL_SOURCE 0
#endif

/* --- module state --- */

typedef struct IdentityObject IdentityObject;
typedef struct BorrowObject BorrowObject;
typedef struct ReadObject ReadObject;

/* The cached result of a pin. It is valid while the same thread runs in the same context, which the version shows:
   CPython increments it whenever a thread enters or leaves a context. The processor is borrowed: it lives until it is
   released, which happens in its own thread and clears this. */
typedef struct {
    IdentityObject *processor; /* NULL: see off_loop */
    bool off_loop;             /* true: no loop runs; false: not known */
    bool on_its_loop;          /* true: the running loop is the one that the processor ran last; false: not known */
    uint64_t thread_state;
    uint64_t context_version;
    uint64_t serial; /* of the module, because a thread can run several interpreters one after another */
} Pin;

/* The ways to read: see read.h. */
enum { READ, READEXACTLY, READUNTIL, READLINE, NEXT_LINE, READS };

/* The methods that are called by a reader: see reader.h. */
enum {
    CALL_DONE, CALL_SET_RESULT, CALL_CREATE_FUTURE, CALL_CALL_SOON, CALL_RELEASE_ROOM, CALL_PAUSE, CALL_RECEIVE_NOW,
    READER_CALLS
};

/* Sizes of chunks and messages, in bytes: see receive_buffer.h. */
typedef struct {
    Py_ssize_t pinned, first, most, big, room;
} Sizes;

typedef struct {
#ifndef Py_GIL_DISABLED
    Pin last_pin;
#endif
    Sizes sizes;
    Py_ssize_t at_once, budget; /* of a reader, in bytes: see reader.h */
    uint64_t serial; /* no other module object in this process has it, or ever had */
    Number generations; /* the number of the last generation of shards */
    PyTypeObject *identity_type;
    PyTypeObject *counters_type;
    PyTypeObject *shard_type;
    PyTypeObject *shards_type;
    PyTypeObject *contents_type;
    PyTypeObject *store_type;
    PyTypeObject *bound_store_type;
    PyTypeObject *pool_type;
    PyTypeObject *borrow_type;
    PyTypeObject *ready_type;
    PyTypeObject *budget_type;
    PyTypeObject *size_class_type;
    PyTypeObject *block_type;
    PyTypeObject *buffers_type;
    PyTypeObject *receive_buffer_type;
    PyTypeObject *reader_type;
    PyTypeObject *read_type;
    ReadObject *spare_read;
    PyObject *spare_stop; /* a StopIteration */
    BorrowObject *spare_borrow;
    PyTypeObject *public_type; /* Pool */
    PyObject *pinned;          /* the ContextVar */
    PyObject *pin;             /* Python functions: see bind() */
    PyObject *processors; /* the dict of all processors, by id */
    PyObject *watch;
    PyObject *check_time;
    PyObject *record_holder;
    PyObject *get_running_loop;
    PyObject *get;
    PyObject *put;
    PyObject *get_slow;
    PyObject *put_slow;
    PyObject *accepts;
    PyObject *trio; /* the name of a module of trio; if that is not imported, no trio run is in progress */
    PyObject *abandon;
    PyObject *acquire_slow;
    PyObject *acquire;
    PyObject *max_size;
    PyObject *slow_reads[READS];
    PyObject *reader_calls[READER_CALLS];
} State;

static struct PyModuleDef native_module;

static State *
state_of(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &native_module);
    return module == NULL ? NULL : PyModule_GetState(module);
}

/* Objects that use the state in their deallocator hold a reference to the module. A reference to the type is not
   enough: when a whole interpreter is garbage, the collector separates types from their module, and the state would
   be freed before the objects that use it. */
static bool
keep_module(PyTypeObject *type, PyObject **module, State **state)
{
    PyObject *found = PyType_GetModuleByDef(type, &native_module);
    if (found == NULL) {
        return false;
    }
    *module = Py_NewRef(found);
    *state = PyModule_GetState(found);
    return true;
}

/* For objects that refer only to their type. The collector must track even these, because the type refers to the
   module, and the module to everything else. */
static int
traverse_type(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void
free_plain(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    type->tp_free(self);
    Py_DECREF(type);
}
