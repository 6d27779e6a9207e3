/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The mark of process_mark.h. */
#include "base/process_mark.h"

#include <sys/mman.h>
#include <unistd.h>

void pgi_process_mark_set(pgi_process_mark *mark) {
    mark->owner = getpid();
#ifdef MADV_WIPEONFORK
    const size_t size = sizeof *mark->page; /* in effect a page */
    if (!mark->page) {
        void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) return;
        if (madvise(page, size, MADV_WIPEONFORK) != 0) {
            munmap(page, size);
            return;
        }
        mark->page = page;
    }
    atomic_store_explicit(mark->page, 1, memory_order_relaxed);
#endif
}

int pgi_process_mark_is_here(const pgi_process_mark *mark) {
    if (mark->owner == 0) return 0;
    return mark->page ? atomic_load_explicit(mark->page, memory_order_relaxed) : mark->owner == getpid();
}

void pgi_process_mark_free(pgi_process_mark *mark) {
    if (mark->page) munmap(mark->page, sizeof *mark->page);
    *mark = (pgi_process_mark){0, NULL};
}
