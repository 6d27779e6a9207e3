/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads of a pool without OpenMP. Each makes the next one before it works and joins it after it, so that no list
 * of them is kept. Where the system refuses one, the chain ends there.
 */
#include "base/pool_threads.h"

typedef struct link {
    pgi_thread_pool *pool;
    int thread;
} link;

static void run_link(link *of);

static void *run_thread(void *of) {
    run_link(of);
    return NULL;
}

static void run_link(link *of) {
    link next = {of->pool, of->thread + 1};
    pthread_t thread;
    const int has_next = next.thread < of->pool->n_threads && pthread_create(&thread, NULL, run_thread, &next) == 0;
    pgi_pool_work(of->pool, of->thread, has_next ? 0 : of->thread);
    if (has_next) pthread_join(thread, NULL);
}

void pgi_pool_make_threads(pgi_thread_pool *pool) { run_link(&(link){pool, 1}); }

int pgi_pool_cpus(int n) { return n; }
