/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The system's services through POSIX calls. */
#include "base/system.h"

#include <stdlib.h> /* arc4random_buf() */
#include <unistd.h>

#ifdef __linux__
#include <sys/random.h>
#endif

void *pgi_system_alloc(size_t size, size_t alignment) {
    void *block = NULL;
    return posix_memalign(&block, alignment, size) == 0 ? block : NULL;
}

void pgi_system_free(void *block) { free(block); }

int pgi_system_random(void *out, size_t size) {
#ifdef __linux__
    return getrandom(out, size, GRND_NONBLOCK) == (ssize_t)size;
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__NetBSD__)
    arc4random_buf(out, size);
    return 1;
#else
    (void)out, (void)size;
    return 0;
#endif
}

size_t pgi_system_page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

double pgi_system_memory(void) { return (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE); }
