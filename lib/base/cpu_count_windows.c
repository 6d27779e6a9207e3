/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* How many CPUs this process may use on Windows: the affinity mask. Job objects may bound the time; that is not read.
 */
#include "base/cpu_count.h"

#include <windows.h>

int pgi_cpu_quota(const char *root) {
    (void)root;
    return 0; /* it has no control groups */
}

int pgi_cpu_count(void) {
    DWORD_PTR ours = 0, all = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &ours, &all) && ours != 0 && ours != all)
        return __builtin_popcountll(ours);
    const DWORD n = GetActiveProcessorCount(ALL_PROCESSOR_GROUPS); /* the masks are those of one group of 64 */
    return n > 0 ? (int)n : 1;
}
