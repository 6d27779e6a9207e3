/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* How many CPUs this process may use. */
#include "base/cpu_count.h"

#include <sched.h>
#include <unistd.h>

int pgi_cpu_count(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 && n < 4096 ? (int)n : 1;
}
