/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Chunks of work on a thread pool. */
#include "base/parallel.h"

/* Some 20 microseconds of one core; a thread pool takes about 5 to meet, and far more when other programs want the
 * CPUs too. */
static const double SMALL_WORK = 2e6;

const pgi_run *pgi_run_for_work(const pgi_run *run, double work, pgi_run *alone) {
    if (work >= SMALL_WORK || run->n_threads == 1) return run;
    *alone = *run;
    alone->n_threads = 1;
    return alone;
}

typedef struct chunks {
    const pgi_run *run;
    int64_t n, grain, n_chunks;
    pgi_task_fn task;
    void *context;
    atomic_llong next; /* chunk */
    atomic_int stop;   /* the cancel flag was seen */
} chunks;

/* Takes chunks until there are none. */
static void do_chunks(void *context, int thread) {
    chunks *c = context;
    const int64_t n = c->n, grain = c->grain, n_chunks = c->n_chunks;
    for (;;) {
        int64_t chunk = atomic_fetch_add_explicit(&c->next, 1, memory_order_relaxed);
        if (chunk >= n_chunks || atomic_load_explicit(&c->stop, memory_order_relaxed)) return;
        if (pgi_run_cancelled(c->run)) {
            atomic_store_explicit(&c->stop, 1, memory_order_relaxed);
            return;
        }
        int64_t begin = chunk * grain;
        c->task(c->context, begin, begin + grain < n ? begin + grain : n, thread);
    }
}

pg_status pgi_parallel_for(const pgi_run *run, int64_t n, int64_t grain, pgi_task_fn task, void *context) {
    chunks c = {
        .run = run, .n = n, .grain = grain, .n_chunks = (n + grain - 1) / grain, .task = task, .context = context};
    if (run->pool && run->n_threads > 1 && c.n_chunks > 1)
        pgi_thread_pool_run(run->pool, do_chunks, &c, c.n_chunks - 1);
    else
        do_chunks(&c, 0);
    return atomic_load(&c.stop) ? pgi_run_cancelled_error() : PG_OK;
}
