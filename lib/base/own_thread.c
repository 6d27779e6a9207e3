/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The threads of own_thread.h. */
#include "base/own_thread.h"

#include "base/thread_stack.h"

void pgi_own_signals_begin(pgi_signals *before) { pgi_signals_block(before); }

void pgi_own_signals_end(const pgi_signals *before) { pgi_signals_restore(before); }

int pgi_own_thread_start(pthread_t *thread, void *(*body)(void *user), void *user) {
    pgi_signals before;
    pgi_own_signals_begin(&before);
    const int error = pgi_thread_create(thread, PGI_POOL_STACK, body, user);
    pgi_own_signals_end(&before);
    return error;
}
