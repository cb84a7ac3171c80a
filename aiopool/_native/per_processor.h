/* A counter with a separate entry for each processor, so that no two processors write to the same memory. With a GIL
   it is one number. Without a GIL it is an array indexed by processor id, each entry on its own cache line, in pieces
   that never move. The entry for id 0 is shared by all off-loop threads. */

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

/* Returns NULL if there is no memory. */
static Entries *
entries_at(SHARED(Entries *) *place)
{
    Entries *known = *place;
    if (known == NULL) {
        Entries *fresh = PyMem_RawCalloc(1, sizeof(Entries));
        if (fresh != NULL && !atomic_compare_exchange_strong(place, &known, fresh)) {
            PyMem_RawFree(fresh); /* another thread was faster */
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

/* Create the processor's entry. Returns false if there is no memory. */
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
        return; /* no memory for the entry: only this count is wrong */
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
