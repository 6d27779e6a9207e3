/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Signals of the calling thread: a thread takes over the mask of the one that makes it. Windows has no such masks. */
#ifndef PGI_BASE_THREAD_SIGNALS_H
#define PGI_BASE_THREAD_SIGNALS_H

#include <signal.h>
#include <stddef.h>

#ifdef _WIN32
typedef struct pgi_signals {
    char none;
} pgi_signals;

static inline void pgi_signals_block(pgi_signals *before) { (void)before; }
static inline void pgi_signals_block_all(pgi_signals *before) { (void)before; }
static inline void pgi_signals_restore(const pgi_signals *before) { (void)before; }
#else
typedef sigset_t pgi_signals;

/* Blocks all signals, so that the host's handlers run on its own threads; but not those that a fault of the thread
 * itself raises. */
static inline void pgi_signals_block(pgi_signals *before) {
    static const int own[] = {SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
    sigset_t set;
    sigfillset(&set);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&set, own[i]);
    pthread_sigmask(SIG_SETMASK, &set, before);
}

static inline void pgi_signals_block_all(pgi_signals *before) {
    sigset_t all;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, before);
}

static inline void pgi_signals_restore(const pgi_signals *before) { pthread_sigmask(SIG_SETMASK, before, NULL); }
#endif

#endif
