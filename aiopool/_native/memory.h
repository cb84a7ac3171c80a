/* Allocation of a block's bytes.

   On Linux, a block of 64 KiB or more has its own mapping. malloc would be cheaper only for blocks that are freed and
   created again at once, which the pool avoids anyway. But glibc's heap shrinks only from the top. A burst of blocks
   that are freed in a different order than they were created is therefore returned to the system by the very last free,
   in one call that takes 70 ms for each GiB; or never, if a small allocation lies above them. munmap returns each block
   when it is freed, so slices of freeing stay short in any order.

   From 4 MiB on, the mapping requests huge pages, as NumPy does for its arrays, which means one page fault for each
   2 MiB instead of each 4 KiB. With huge pages a smaller block would be fully resident even if only a part is used. */

#pragma once

#include "state.h"

#ifdef __linux__

#include <sys/mman.h>

enum {
    MAPPED_FROM = 64 * 1024,
    HUGE_FROM = 4 * 1024 * 1024,
    HUGE_PAGE = 2 * 1024 * 1024,
    LARGEST_PAGE = 64 * 1024, /* the largest regular page of any machine; the size of a mapping is a multiple of it */
    /* By default a process may have 65,530 mappings. Adjacent mappings count as one until a block between them is
       freed, so at worst each block counts as one. Blocks that get huge pages are few, and are always mapped. */
    MOST_MAPPED = 32 * 1024,
    TRACED_AS = 0, /* tracemalloc's domain for allocations of PyMem_RawMalloc */
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

/* Aligned to HUGE_PAGE, because only aligned pages can be huge. */
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
    madvise(pages + before, size, MADV_HUGEPAGE); /* only a request: if it fails, the pages are small */
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
        /* The process would exceed its number of mappings. This returns the memory, though not the addresses. */
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

/* Return zeroed memory; NULL if there is none. */
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
