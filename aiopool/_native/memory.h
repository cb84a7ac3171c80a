/* The bytes of a block.

   From 64 KiB on, a block on Linux has a mapping of its own. malloc would be cheaper for blocks that are freed and
   created again at once, and that is what the pool itself is for. What it costs to leave them to glibc: its heap shrinks
   from the top only. A burst that is freed in another order than it came is therefore returned to the system by the last
   free of all, in one call that takes 70 ms for each GiB; or it is never returned, when something small lies above it.
   munmap returns each block when it is freed, so slices of freeing stay slices, whatever the order was.

   From 4 MiB on, the mapping asks for huge pages, as NumPy does for its arrays: a fault for each 2 MiB instead of for
   each 4 KiB. Smaller blocks would be resident as a whole where only a part is used. */

#pragma once

#include "state.h"

#ifdef __linux__

#include <sys/mman.h>

enum {
    MAPPED_FROM = 64 * 1024,
    HUGE_FROM = 4 * 1024 * 1024,
    HUGE_PAGE = 2 * 1024 * 1024,
    LARGEST_PAGE = 64 * 1024, /* of those that are not huge, on any machine: mappings begin and end with one */
    /* A process may have 65,530 mappings. Neighbours count as one until a block between them is freed, so at worst a
       block is one more. The largest blocks are few, and are mapped always. */
    MOST_MAPPED = 32 * 1024,
    TRACED_AS = 0, /* the domain in which tracemalloc knows what PyMem_RawMalloc gave */
};

static atomic_int mapped_blocks;

static char *
map_pages(size_t size)
{
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

static size_t
mapped_size(Py_ssize_t size)
{
    return ((size_t)size + LARGEST_PAGE - 1) / LARGEST_PAGE * LARGEST_PAGE;
}

/* At a multiple of HUGE_PAGE, because only whole ones can be huge. */
static char *
map_huge_pages(size_t size)
{
    char *pages = size > SIZE_MAX - HUGE_PAGE ? NULL : map_pages(size + HUGE_PAGE);
    if (pages == NULL) {
        return NULL;
    }
    size_t before = (HUGE_PAGE - (uintptr_t)pages % HUGE_PAGE) % HUGE_PAGE;
    if (before > 0) {
        munmap(pages, before);
    }
    munmap(pages + before + size, HUGE_PAGE - before);
#ifdef MADV_HUGEPAGE
    madvise(pages + before, size, MADV_HUGEPAGE); /* a wish: where it is not granted, pages are small */
#endif
    return pages + before;
}

static char *
map_block(Py_ssize_t size)
{
    if (size < MAPPED_FROM || (size < HUGE_FROM && atomic_load(&mapped_blocks) >= MOST_MAPPED)) {
        return NULL;
    }
    char *bytes = size < HUGE_FROM ? map_pages(mapped_size(size)) : map_huge_pages(mapped_size(size));
    if (bytes != NULL) {
        atomic_fetch_add(&mapped_blocks, 1);
        PyTraceMalloc_Track(TRACED_AS, (uintptr_t)bytes, (size_t)size);
    }
    return bytes;
}

static void
unmap_block(char *bytes, Py_ssize_t size)
{
    PyTraceMalloc_Untrack(TRACED_AS, (uintptr_t)bytes);
    if (munmap(bytes, mapped_size(size)) < 0) {
        /* One mapping more than a process may have: the memory goes back, if not the addresses. */
        madvise(bytes, mapped_size(size), MADV_DONTNEED);
    }
    atomic_fetch_sub(&mapped_blocks, 1);
}

#else

static char *
map_block(Py_ssize_t Py_UNUSED(size))
{
    return NULL;
}

static void
unmap_block(char *Py_UNUSED(bytes), Py_ssize_t Py_UNUSED(size))
{
}

#endif

/* Zero. NULL: no memory. */
static char *
memory_allocate(Py_ssize_t size, char *is_mapped)
{
    char *bytes = map_block(size);
    *is_mapped = bytes != NULL;
    return bytes == NULL ? PyMem_RawCalloc(1, (size_t)size) : bytes;
}

static void
memory_free(char *bytes, Py_ssize_t size, char is_mapped)
{
    if (is_mapped) {
        unmap_block(bytes, size);
    }
    else {
        PyMem_RawFree(bytes);
    }
}
