/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What an operating system gives beside files, threads and clocks: system_posix.c and system_windows.c. */
#ifndef PGI_BASE_SYSTEM_H
#define PGI_BASE_SYSTEM_H

#include <stddef.h>

/* NULL: there is no memory. Freed by the second alone. */
void *pgi_system_alloc(size_t size, size_t alignment);
void pgi_system_free(void *block);

/* Random bytes, without waiting for them; 0: there are none. */
int pgi_system_random(void *out, size_t size);

size_t pgi_system_page_size(void);
/* Bytes of memory that the machine has. */
double pgi_system_memory(void);

#endif
