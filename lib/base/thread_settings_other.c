/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The settings of thread_settings.h on systems where the library does not know how to set them. */
#include "base/thread_settings.h"

#include <string.h>

pg_status pgi_thread_settings_init(int nice, const int32_t *cpus, int64_t n_cpus, int leave_free,
                                   pgi_thread_settings *out) {
    (void)cpus, (void)leave_free;
    memset(out, 0, sizeof *out);
    out->nice = nice;
    if (n_cpus == 0) return PG_OK;
    return pgi_error(PG_ERROR_UNSUPPORTED,
                     "cpus has %lld numbers, expected none: threads are bound to CPUs on Linux "
                     "alone",
                     (long long)n_cpus);
}

pg_status pgi_thread_settings_apply(const pgi_thread_settings *settings) {
    (void)settings;
    return PG_OK;
}
