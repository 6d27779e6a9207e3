/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The threads of own_thread.h. */
#include "base/own_thread.h"

#include "base/thread_stack.h"

void pgi_own_signals_begin(sigset_t *before) {
    static const int own[] = {SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
    sigset_t set;
    sigfillset(&set);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&set, own[i]);
    pthread_sigmask(SIG_SETMASK, &set, before);
}

void pgi_own_signals_end(const sigset_t *before) { pthread_sigmask(SIG_SETMASK, before, NULL); }

int pgi_own_thread_start(pthread_t *thread, void *(*body)(void *user), void *user) {
    sigset_t before;
    pgi_own_signals_begin(&before);
    const int error = pgi_thread_create(thread, PGI_POOL_STACK, body, user);
    pgi_own_signals_end(&before);
    return error;
}
