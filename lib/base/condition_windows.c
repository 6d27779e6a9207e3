/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Waits by the clock of the day, as winpthreads has conditions of no other: a second at a time, so that a clock that is
 * set back meanwhile costs no more. */
#include "base/condition.h"

#include <time.h>

void pgi_condition_init(pthread_cond_t *condition) { pthread_cond_init(condition, NULL); }

void pgi_condition_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double seconds) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    const double left = seconds < 0 ? 0 : seconds < 1 ? seconds : 1;
    const long long nanoseconds = end.tv_nsec + (long long)(left * 1e9);
    end.tv_sec += (time_t)(nanoseconds / 1000000000);
    end.tv_nsec = (long)(nanoseconds % 1000000000);
    pthread_cond_timedwait(condition, mutex, &end);
}
