/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The thread of background.h. */
#include "base/background.h"

#include "base/thread_signals.h"
#include "base/thread_stack.h"

void pgi_background_start(pgi_background *thread, void *(*body)(void *user), void *user) {
    pthread_attr_t attributes;
    pgi_signals before;
    if (pthread_attr_init(&attributes) != 0) return;
    (void)pthread_attr_setstacksize(&attributes, PGI_LEAST_STACK);
    pgi_signals_block_all(&before); /* inherited by the thread */
    if (pthread_create(&thread->id, &attributes, body, user) == 0) pgi_process_mark_set(&thread->mark);
    pgi_signals_restore(&before);
    (void)pthread_attr_destroy(&attributes);
}

void pgi_background_end(pgi_background *thread) {
    atomic_store(&thread->stop, 1);
    if (pgi_process_mark_is_here(&thread->mark)) pthread_join(thread->id, NULL);
    pgi_process_mark_free(&thread->mark);
}
