/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Priority and CPUs of a thread, which the threads that it starts take over. One small file for each system. */
#ifndef PGI_BASE_THREAD_SETTINGS_H
#define PGI_BASE_THREAD_SETTINGS_H

#include <stdint.h>

#include "base/status.h"

enum { PGI_MOST_CPUS = 1024 }; /* numbers of CPUs that can be named: 0 to 1023 */

typedef struct pgi_thread_settings {
    int nice;     /* added to that of the thread */
    int has_cpus; /* 0: those that the thread has */
    uint64_t cpus[PGI_MOST_CPUS / 64];
} pgi_thread_settings;

/* cpus [n_cpus]: NULL: those of the calling thread; leave_free: without the lowest of them, where there are several.
 * Errors: PG_ERROR_ARGUMENT (cpus: a number; none), _UNSUPPORTED (cpus, where threads cannot be bound). */
pg_status pgi_thread_settings_init(int nice, const int32_t *cpus, int64_t n_cpus, int leave_free,
                                   pgi_thread_settings *out);
/* Gives them to the calling thread. Errors: PG_ERROR_ARGUMENT (none of the CPUs is one that the process may use). */
pg_status pgi_thread_settings_apply(const pgi_thread_settings *settings);

#endif
