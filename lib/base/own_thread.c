/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The threads of own_thread.h. */
#include "base/own_thread.h"

#include "base/thread_signals.h"
#include "base/thread_stack.h"

int pgi_own_thread_start(pthread_t *thread, void *(*body)(void *user), void *user) {
    pgi_signals before;
    pgi_signals_block(&before);
    const int error = pgi_thread_create(thread, PGI_POOL_STACK, body, user);
    pgi_signals_restore(&before);
    return error;
}
