/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Threads of the library's own, none of which runs the host's signal handlers. */
#ifndef PGI_BASE_OWN_THREAD_H
#define PGI_BASE_OWN_THREAD_H

#include <pthread.h>

#include "base/thread_signals.h"

/* Blocks signals on the calling thread, so that the host's handlers run on its own threads; but not those that a fault
 * of the thread itself raises. A thread that it starts takes that over. */
void pgi_own_signals_begin(pgi_signals *before);
void pgi_own_signals_end(const pgi_signals *before);

/* Runs body(user) on a new thread with such signals and the stack of a pool's thread at least. 0, or an error number:
 * systems refuse threads. */
int pgi_own_thread_start(pthread_t *thread, void *(*body)(void *user), void *user);

#endif
