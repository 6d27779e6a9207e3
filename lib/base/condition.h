/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Condition variables that are waited for no longer than a time: condition_posix.c and condition_windows.c. */
#ifndef PGI_BASE_CONDITION_H
#define PGI_BASE_CONDITION_H

#include <pthread.h>

void pgi_condition_init(pthread_cond_t *condition);
/* Waits until it is signalled, `seconds` at the most, or for less: whoever waits looks at the clock again. */
void pgi_condition_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double seconds);

#endif
