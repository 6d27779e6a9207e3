/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The settings of thread_settings.h on Linux, where a nice value and a mask of CPUs are a thread's own. */
#include "base/thread_settings.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static void take_cpu(pgi_thread_settings *settings, int cpu) {
    settings->cpus[cpu / 64] |= UINT64_C(1) << (cpu % 64);
    settings->has_cpus = 1;
}

/* Those of the calling thread but the lowest one. Nothing where there is one alone, or where the kernel has more of
 * them than a mask of ours can hold. */
static void leave_lowest(pgi_thread_settings *settings) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return;
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE && cpu < PGI_MOST_CPUS; cpu++)
        if (CPU_ISSET(cpu, &set) && seen++ > 0) take_cpu(settings, cpu);
}

pg_status pgi_thread_settings_init(int nice, const int32_t *cpus, int64_t n_cpus, int leave_free,
                                   pgi_thread_settings *out) {
    memset(out, 0, sizeof *out);
    out->nice = nice;
    for (int64_t i = 0; i < n_cpus; i++) {
        if (cpus[i] < 0 || cpus[i] >= PGI_MOST_CPUS)
            return pgi_error(PG_ERROR_ARGUMENT, "cpus[%lld] is %d, expected 0 to %d", (long long)i, cpus[i],
                             PGI_MOST_CPUS - 1);
        take_cpu(out, cpus[i]);
    }
    if (n_cpus == 0 && leave_free) leave_lowest(out);
    return PG_OK;
}

pg_status pgi_thread_settings_apply(const pgi_thread_settings *settings) {
    if (settings->nice > 0) {
        const id_t self = (id_t)syscall(SYS_gettid);
        errno = 0;
        const int before = getpriority(PRIO_PROCESS, self);
        /* refused nowhere: it becomes nicer, at most 19 */
        if (errno == 0) (void)setpriority(PRIO_PROCESS, self, before + settings->nice);
    }
    if (!settings->has_cpus) return PG_OK;
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int cpu = 0; cpu < PGI_MOST_CPUS; cpu++)
        if (settings->cpus[cpu / 64] >> (cpu % 64) & 1) CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) == 0) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT, "cpus has none of the CPUs that this process may use");
}
