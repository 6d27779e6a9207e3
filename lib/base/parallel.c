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

enum { MOST_SHARES = 64, LINE_BYTES = 64 };

/* How many chunks of a share are taken. Alone in a line of the cache, for mostly its own thread counts here. */
typedef struct share {
    _Alignas(LINE_BYTES) atomic_llong taken;
} share;

typedef struct chunks {
    const pgi_run *run;
    int64_t n, grain, n_chunks;
    pgi_task_fn task;
    void *context;
    atomic_int stop; /* the cancel flag was seen */
    int n_shares;    /* of the chunks */
    share shares[MOST_SHARES];
} chunks;

/* Takes chunks of a share until there are none. */
static void do_share(chunks *c, int which, int thread) {
    const int64_t first = c->n_chunks * which / c->n_shares, n = c->n_chunks * (which + 1) / c->n_shares - first;
    atomic_llong *taken = &c->shares[which].taken;
    while (atomic_load_explicit(taken, memory_order_relaxed) < n) { /* or they would all write to what is done */
        const int64_t chunk = atomic_fetch_add_explicit(taken, 1, memory_order_relaxed);
        if (chunk >= n || atomic_load_explicit(&c->stop, memory_order_relaxed)) return;
        if (pgi_run_cancelled(c->run)) {
            atomic_store_explicit(&c->stop, 1, memory_order_relaxed);
            return;
        }
        const int64_t begin = (first + chunk) * c->grain;
        c->task(c->context, begin, begin + c->grain < c->n ? begin + c->grain : c->n, thread);
    }
}

/* The thread's own share, then what is left of the others. */
static void do_chunks(void *context, int thread) {
    chunks *c = context;
    for (int i = 0; i < c->n_shares; i++) do_share(c, (thread + i) % c->n_shares, thread);
}

pg_status pgi_parallel_for(const pgi_run *run, int64_t n, int64_t grain, pgi_task_fn task, void *context) {
    chunks c; /* what it has room for beyond n_shares is not set */
    c.run = run;
    c.n = n, c.grain = grain, c.n_chunks = (n + grain - 1) / grain;
    c.task = task, c.context = context;
    atomic_init(&c.stop, 0);
    c.n_shares = run->pool && run->n_threads > 1 ? (run->n_threads < MOST_SHARES ? run->n_threads : MOST_SHARES) : 1;
    for (int i = 0; i < c.n_shares; i++) atomic_init(&c.shares[i].taken, 0);
    if (c.n_shares > 1 && c.n_chunks > 1)
        pgi_thread_pool_run(run->pool, do_chunks, &c, c.n_chunks - 1);
    else
        do_chunks(&c, 0);
    return atomic_load(&c.stop) ? pgi_run_cancelled_error() : PG_OK;
}
