/* Chunks of work on a team of threads; the run that carries it. */
#include "base/parallel.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

static pg_status cancelled(void) { return pgi_error(PG_ERROR_CANCELLED, "cancelled by request"); }

void pgi_cancel_retain(pg_cancel *cancel) {
    if (cancel) atomic_fetch_add_explicit(&cancel->references, 1, memory_order_relaxed);
}

void pgi_cancel_release(pg_cancel *cancel) {
    if (cancel && atomic_fetch_sub_explicit(&cancel->references, 1, memory_order_acq_rel) == 1) free(cancel);
}

pg_status pgi_run_progress(const pgi_run *run, int32_t phase, int64_t done, int64_t total) {
    if (run->progress && run->progress(run->progress_user, phase, done, total))
        return pgi_error(PG_ERROR_CANCELLED, "cancelled by the progress callback");
    return pgi_run_cancelled(run) ? cancelled() : PG_OK;
}

int pgi_cpu_count(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 && n < 4096 ? (int)n : 1;
}

pgi_run pgi_run_open(pgi_team *team, const struct pgi_kernels *kernels, const pg_run_options *options) {
    pgi_team_open(team, options->n_threads);
    return (pgi_run){
        .kernels = kernels,
        .n_threads = options->n_threads,
        .team = team,
        .cancel = options->cancel,
        .progress = options->progress,
        .progress_user = options->progress_user,
    };
}

void pgi_run_close(pgi_run *run) {
    if (run->team) pgi_team_close(run->team);
    run->team = NULL;
}

/* Some 20 microseconds of one core; a team of threads takes about 5 to meet, and far more when other programs want the
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
    chunks c = {.run = run, .n = n, .grain = grain, .n_chunks = (n + grain - 1) / grain, .task = task,
                .context = context};
    if (run->team && run->n_threads > 1 && c.n_chunks > 1)
        pgi_team_run(run->team, do_chunks, &c, c.n_chunks - 1);
    else
        do_chunks(&c, 0);
    return atomic_load(&c.stop) ? cancelled() : PG_OK;
}
