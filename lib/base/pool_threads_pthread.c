/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads of a pool without OpenMP. Each makes the next one before it works and joins it after it, so that no list
 * of them is kept. Where the system refuses one, the chain ends there.
 */
#include <pthread.h>

#include "base/pool_threads.h"
#include "base/thread_stack.h"

typedef struct link {
    pgi_thread_fn body;
    void *user;
    int thread, wanted;
} link;

static void *run_link(void *user) {
    const link *of = user;
    link next = *of;
    pthread_t thread;
    next.thread++;
    const int has_next = next.thread < of->wanted && pgi_thread_create(&thread, PGI_POOL_STACK, run_link, &next) == 0;
    of->body(of->user, of->thread, has_next ? 0 : next.thread);
    if (has_next) pthread_join(thread, NULL);
    return NULL;
}

void pgi_make_pool_threads(int wanted, pgi_thread_fn body, void *user) { run_link(&(link){body, user, 0, wanted}); }

int pgi_pool_cpus(int n) { return n; }
