/* What everything else here stands on: the differences between versions and builds, and the state of the module. */

#pragma once

#include <Python.h>
#include <structmember.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* --- what differs between versions and builds --- */

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

#ifndef Py_BEGIN_CRITICAL_SECTION /* 3.12 and before: the GIL is the section */
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

#ifdef _MSC_VER
#define THREAD_LOCAL __declspec(thread)
#else
#define THREAD_LOCAL _Thread_local
#endif

/* Of what is unusual: inlined, it would make the fast path longer. */
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

/* At the end of an object that one processor writes all the time: whatever the allocator puts behind it is on another
   cache line. Without this, two processors that write to neighbours hold each other up as if they shared an object. */
#ifdef Py_GIL_DISABLED
#define CACHE_LINE 64
#define PADDING char padding[CACHE_LINE];
#else
#define PADDING
#endif

/* Counts have one writer, and many readers that may see them late. */
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

/* The same to some milliseconds, for much less. Never later than it is. */
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

/* Without a GIL the reference count of an object that all threads use would be written by all of them. With deferred
   counting no thread writes it, and the object dies at a garbage collection. */
static inline void
defer_reference_counting(PyObject *object)
{
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030e0000
    PyUnstable_Object_EnableDeferredRefcount(object);
#else
    (void)object;
#endif
}

/* A lock that is only tried; with a GIL it is always free. Its holder runs no Python code and frees nothing. */
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

/* For code that has nothing better to do meanwhile. The holder needs a few instructions, unless the system took it off
   its core: then let others run. */
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

/* Until it was free once. */
static inline void
lock_wait_for(Flag *lock)
{
#ifdef Py_GIL_DISABLED
    for (int spins = 1; atomic_load(lock); spins++) {
        if (spins % 1024 == 0) {
            Py_BEGIN_ALLOW_THREADS
            Py_END_ALLOW_THREADS
        }
    }
#else
    (void)lock;
#endif
}

static inline void
lock_release(Flag *lock)
{
#ifdef Py_GIL_DISABLED
    atomic_store_explicit(lock, 0, memory_order_release);
#else
    (void)lock;
#endif
}

#ifndef AIOPOOL_SOURCE /* a checksum of all these files, from setup.py */
#define AIOPOOL_SOURCE 0
#endif

/* --- module state --- */

typedef struct IdentityObject IdentityObject;
typedef struct BorrowObject BorrowObject;
typedef struct ReadObject ReadObject;

/* What a pin found. It holds while the same thread runs in the same context, which the version tells: CPython
   counts it up whenever a thread enters or leaves a context. The processor is borrowed: it lives until it is released,
   which happens in its own thread, and clears this. */
typedef struct {
    IdentityObject *processor; /* NULL: see off_loop */
    bool off_loop;             /* no loop runs */
    bool on_its_loop;          /* the loop that runs is the one that the processor ran last; else it is not known */
    uint64_t thread_state;
    uint64_t context_version;
    uint64_t serial; /* of the module, since a thread can run several interpreters one after another */
} Pin;

/* The ways to read: see read.h. */
enum { READ, READEXACTLY, READUNTIL, READLINE, NEXT_LINE, READS };

/* The methods that are called by a reader: see reader.h. */
enum {
    CALL_DONE, CALL_SET_RESULT, CALL_CREATE_FUTURE, CALL_CALL_SOON, CALL_RELEASE_ROOM, CALL_PAUSE, CALL_RECEIVE_NOW,
    READER_CALLS
};

/* Of chunks and messages, in bytes: see receive_buffer.h. */
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
    Number generations; /* how many generations of shards were numbered */
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
    PyTypeObject *public_type; /* the class that users make pools of */
    PyObject *pinned;          /* the ContextVar */
    PyObject *pin;             /* Python functions: see bind() */
    PyObject *processors;
    PyObject *watch;
    PyObject *check_time;
    PyObject *record_holder;
    PyObject *get_running_loop;
    PyObject *get;
    PyObject *put;
    PyObject *get_slow;
    PyObject *put_slow;
    PyObject *accepts;
    PyObject *trio; /* the name of the module without which no run of trio is under way */
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

/* An object that uses the state to its very end keeps the module from creation to deallocation. To keep the type is not
   enough: when a whole interpreter is garbage, the collector cuts a type off its module, and the state would be freed
   under objects that are still to be deallocated. */
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

/* For objects that refer to nothing but their type. Even those the collector must know: the type leads to the module,
   and from there to everything else. */
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
