/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A thread beside those that compute, for work that nobody waits for. */
#ifndef PGI_BASE_BACKGROUND_H
#define PGI_BASE_BACKGROUND_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/process_mark.h"

/* All zeros before it is started. */
typedef struct pgi_background {
    pthread_t id;
    pgi_process_mark mark; /* of the process that has it; not set: it was not started, or could not be */
    atomic_int stop;       /* the body looks at this often */
} pgi_background;

/* Runs body(user) on a thread with a small stack, without the host's signals. It may never run: systems refuse threads.
 */
void pgi_background_start(pgi_background *thread, void *(*body)(void *user), void *user);
/* Asks it to stop and waits for it. Nothing in a child of fork(), which has no such thread. */
void pgi_background_end(pgi_background *thread);

#endif
