/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The clock that durations are measured with: it never goes back. */
#include "base/clock.h"

#include <time.h>

double pgi_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
