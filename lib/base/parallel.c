/*
 * Threads through OpenMP, without touching the host's OpenMP settings: only
 * the num_threads clause of our own regions is used.
 *
 * libgomp's thread pool does not survive fork(): a child's first parallel
 * region would wait for threads that are not there. So a process that has
 * forked after using threads runs serially (results are the same).
 *
 * libgomp ends the process when the system refuses it a thread (ulimit -u, the
 * pids limit of a container). So before a team grows, as many threads are
 * created and joined here, where a refusal can be seen: then fewer are used.
 */
#include "base/parallel.h"

#include <pthread.h>
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

#ifdef PGI_OPENMP
#include <omp.h>

/* The process that first used threads; a child after fork() has another id. */
static atomic_int thread_owner;

static int may_use_threads(void) {
    int self = (int)getpid(), owner = 0;
    if (atomic_compare_exchange_strong(&thread_owner, &owner, self)) return 1;
    return owner == self;
}

static void *wait_for_gate(void *gate) {
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

/* How many of `wanted` threads the system lets live at once, the calling one counted. */
static int try_threads(int wanted) {
    enum { MAX = 1024 }; /* the API allows no more */
    pthread_t threads[MAX];
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    int n = 0;
    pthread_mutex_lock(&gate);
    while (n < wanted - 1 && n < MAX && pthread_create(&threads[n], NULL, wait_for_gate, &gate) == 0) n++;
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&gate);
    return n + 1;
}

/* The team for a run; libgomp's pool belongs to the calling thread, and so does what is known about it. */
static int team_size(int wanted) {
    static _Thread_local int tried, found;
    if (wanted > tried) {
        found = try_threads(wanted);
        tried = wanted;
    }
    return wanted < found ? wanted : found;
}
#endif

/* Some 20 microseconds of one core; a team of threads takes about 5 to meet, and far more when other programs want the
 * CPUs too. */
static const double SMALL_WORK = 2e6;

const pgi_run *pgi_run_for_work(const pgi_run *run, double work, pgi_run *alone) {
    if (work >= SMALL_WORK || run->n_threads == 1) return run;
    *alone = *run;
    alone->n_threads = 1;
    return alone;
}

pg_status pgi_parallel_for(const pgi_run *run, int64_t n, int64_t grain, pgi_task_fn task, void *context) {
    int64_t n_chunks = (n + grain - 1) / grain;
#ifdef PGI_OPENMP
    /* All threads of the run, though there may be fewer chunks: libgomp ends the ones that a smaller team leaves out,
     * and creating them again for the next region costs more than waking them. */
    int n_threads = run->n_threads > 1 && n_chunks > 1 && may_use_threads() ? team_size(run->n_threads) : 1;
    if (n_threads > 1) {
        atomic_int stop = 0;
#pragma omp parallel num_threads(n_threads)
        {
            int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
            for (int64_t chunk = 0; chunk < n_chunks; chunk++) {
                if (atomic_load_explicit(&stop, memory_order_relaxed)) continue;
                if (pgi_run_cancelled(run)) {
                    atomic_store_explicit(&stop, 1, memory_order_relaxed);
                    continue;
                }
                int64_t begin = chunk * grain;
                task(context, begin, begin + grain < n ? begin + grain : n, thread);
            }
        }
        return atomic_load(&stop) ? cancelled() : PG_OK;
    }
#endif
    for (int64_t chunk = 0; chunk < n_chunks; chunk++) {
        if (pgi_run_cancelled(run)) return cancelled();
        int64_t begin = chunk * grain;
        task(context, begin, begin + grain < n ? begin + grain : n, 0);
    }
    return PG_OK;
}
