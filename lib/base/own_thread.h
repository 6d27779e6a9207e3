/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Threads of the library's own, none of which runs the host's signal handlers. */
#ifndef PGI_BASE_OWN_THREAD_H
#define PGI_BASE_OWN_THREAD_H

#include <pthread.h>

/* Runs body(user) on a new thread that blocks signals (thread_signals.h), with the stack of a pool's thread at least.
 * 0, or an error number: systems refuse threads. */
int pgi_own_thread_start(pthread_t *thread, void *(*body)(void *user), void *user);

#endif
