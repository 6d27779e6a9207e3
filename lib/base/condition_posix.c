/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Waits by the clock that never goes back, where the system has it for this. */
#include "base/condition.h"

#include <math.h>
#include <time.h>

void pgi_condition_init(pthread_cond_t *condition) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

void pgi_condition_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double seconds) {
    enum { LONGEST = 3600 }; /* seconds at a time, so that every time_t can hold the end */
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (!(seconds < LONGEST)) seconds = LONGEST;
    const long nanoseconds = end.tv_nsec + (long)((seconds - floor(seconds)) * 1e9);
    end.tv_sec += (time_t)floor(seconds) + nanoseconds / 1000000000;
    end.tv_nsec = nanoseconds % 1000000000;
    pthread_cond_timedwait(condition, mutex, &end);
}
