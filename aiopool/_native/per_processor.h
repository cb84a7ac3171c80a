/* A number that each processor counts for itself, so that no two write to the same memory. With a GIL that is one
   number; without one it is an array by processor id, each entry on a cache line of its own, in pieces that never
   move. Id 0 is off-loop code's, where many threads count. */

#pragma once

#include "processor.h"

#ifdef Py_GIL_DISABLED

enum { ENTRIES = 16 };

typedef struct {
    Count value;
    char padding[CACHE_LINE - sizeof(Count)];
} Entry;

typedef struct Entries {
    Entry entries[ENTRIES];
    SHARED(struct Entries *) next;
} Entries;

typedef struct {
    SHARED(Entries *) first;
} PerProcessor;

/* NULL: no memory. */
static Entries *
entries_at(SHARED(Entries *) *place)
{
    Entries *known = *place;
    if (known == NULL) {
        Entries *fresh = PyMem_RawCalloc(1, sizeof(Entries));
        if (fresh != NULL && !atomic_compare_exchange_strong(place, &known, fresh)) {
            PyMem_RawFree(fresh); /* another thread was first */
            fresh = known;
        }
        known = fresh;
    }
    return known;
}

static inline Count *
per_processor_entry(PerProcessor *self, const IdentityObject *processor)
{
    Py_ssize_t id = processor == NULL ? 0 : processor->id;
    Entries *entries = entries_at(&self->first);
    for (; entries != NULL && id >= ENTRIES; id -= ENTRIES) {
        entries = entries_at(&entries->next);
    }
    return entries == NULL ? NULL : &entries->entries[id].value;
}

/* Make sure that the processor can count. False: no memory. */
static bool
per_processor_reserve(PerProcessor *self, const IdentityObject *processor)
{
    return per_processor_entry(self, processor) != NULL;
}

static inline void
per_processor_add(PerProcessor *self, const IdentityObject *processor, long long more)
{
    Count *entry = per_processor_entry(self, processor);
    if (entry == NULL) {
        return; /* without memory for a count it is wrong, and nothing else is */
    }
    if (processor == NULL) {
        atomic_fetch_add_explicit(entry, more, memory_order_relaxed);
    }
    else {
        count_add(entry, more);
    }
}

static long long
per_processor_sum(PerProcessor *self)
{
    long long sum = 0;
    for (Entries *entries = self->first; entries != NULL; entries = entries->next) {
        for (int i = 0; i < ENTRIES; i++) {
            sum += count_read(&entries->entries[i].value);
        }
    }
    return sum;
}

static void
per_processor_free(PerProcessor *self)
{
    for (Entries *entries = self->first; entries != NULL;) {
        Entries *next = entries->next;
        PyMem_RawFree(entries);
        entries = next;
    }
}

#else

typedef struct {
    Count value;
} PerProcessor;

static bool
per_processor_reserve(PerProcessor *Py_UNUSED(self), const IdentityObject *Py_UNUSED(processor))
{
    return true;
}

static inline void
per_processor_add(PerProcessor *self, const IdentityObject *Py_UNUSED(processor), long long more)
{
    self->value += more;
}

static long long
per_processor_sum(PerProcessor *self)
{
    return self->value;
}

static void
per_processor_free(PerProcessor *Py_UNUSED(self))
{
}

#endif
