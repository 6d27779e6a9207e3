/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The threads of a pool: how a job is handed out, how threads wait, how they are started and ended. */
#include "base/thread_pool.h"

#include <string.h>
#include <time.h>

#include "base/cpu_count.h"
#include "base/environment.h"
#include "base/own_thread.h"
#include "base/pool_threads.h"
#include "base/thread_signals.h"

enum {
    SPIN_NANOSECONDS = 30000, /* waking a thread takes about as long */
    PAUSES = 32               /* between two looks at the clock */
};

/* Parts of the job state. INSIDE counts the other threads that are in the job. A job may be entered while OPEN is set;
 * QUIT is set once, when the pool ends; the rest is the job's number. */
enum { INSIDE = 0xFFF, OPEN = 0x1000, QUIT = 0x2000, NUMBER = ~(INSIDE | OPEN | QUIT), ONE_NUMBER = 0x4000 };

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* `yield` does nothing on most cores */
#endif
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Whether a thread that has seen job `number` has something to do, or is to end. */
static int is_called(uint32_t job_state, uint32_t number) {
    return (job_state & QUIT) || ((job_state & OPEN) && (job_state & NUMBER) != number);
}

static int is_empty(uint32_t job_state, uint32_t number) {
    (void)number;
    return (job_state & INSIDE) == 0;
}

/* Waits busily for a job state that is `wanted`, but not for long; returns the last one seen. */
static uint32_t spin(pgi_thread_pool *pool, int (*wanted)(uint32_t job_state, uint32_t number), uint32_t number) {
    uint32_t job_state = atomic_load_explicit(&pool->job_state, memory_order_acquire);
    if (!pool->spins || wanted(job_state, number)) return job_state;
    const int64_t end = now() + SPIN_NANOSECONDS;
    do {
        for (int i = 0; i < PAUSES; i++) {
            relax();
            job_state = atomic_load_explicit(&pool->job_state, memory_order_acquire);
            if (wanted(job_state, number)) return job_state;
        }
    } while (now() < end);
    return job_state;
}

/* Sleeping: a thread first says that it is about to sleep, then looks at the job state once more. A thread that changes
 * the job state looks for sleepers afterwards. Both are sequentially consistent, so one of them sees the other. */
static uint32_t wait_for_call(pgi_thread_pool *pool, uint32_t number) {
    for (;;) {
        uint32_t job_state = spin(pool, is_called, number);
        if (is_called(job_state, number)) return job_state;
        pthread_mutex_lock(&pool->mutex);
        atomic_fetch_add(&pool->n_sleeping, 1);
        /* Not in a loop: woken too late for one job, a thread waits busily for the next. */
        if (!is_called(atomic_load(&pool->job_state), number)) pthread_cond_wait(&pool->work, &pool->mutex);
        atomic_fetch_sub(&pool->n_sleeping, 1);
        pthread_mutex_unlock(&pool->mutex);
    }
}

static void wait_for_others(pgi_thread_pool *pool) {
    if (is_empty(spin(pool, is_empty, 0), 0)) return;
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->caller_sleeps, 1);
    while (!is_empty(atomic_load(&pool->job_state), 0)) pthread_cond_wait(&pool->done, &pool->mutex);
    atomic_store(&pool->caller_sleeps, 0);
    pthread_mutex_unlock(&pool->mutex);
}

/* Taking the mutex waits for threads that have decided to sleep but are not asleep yet; a signal sent earlier would be
 * lost. */
static void wait_for_sleepers(pgi_thread_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

static void wake_caller(pgi_thread_pool *pool) {
    if (!atomic_load(&pool->caller_sleeps)) return;
    wait_for_sleepers(pool);
    pthread_cond_signal(&pool->done);
}

static void wake_others(pgi_thread_pool *pool, int64_t wanted) {
    const int n = atomic_load(&pool->n_sleeping);
    if (n == 0) return;
    wait_for_sleepers(pool);
    if (wanted < n)
        for (int64_t i = 0; i < wanted; i++) pthread_cond_signal(&pool->work);
    else
        pthread_cond_broadcast(&pool->work);
}

static void work_until_quit(pgi_thread_pool *pool, int thread) {
    for (uint32_t number = 0;;) {
        uint32_t job_state = wait_for_call(pool, number);
        if (job_state & QUIT) return;
        if (!atomic_compare_exchange_weak(&pool->job_state, &job_state, job_state + 1)) continue;
        number = job_state & NUMBER;
        pool->body(pool->context, thread);
        job_state = atomic_fetch_sub(&pool->job_state, 1) - 1;
        if (is_empty(job_state, 0) && !(job_state & OPEN)) wake_caller(pool);
    }
}

/* ---- starting and ending ---- */

/* One of the other threads, thread 0 of them the first. OpenMP may lend one that it had for the host, so what is set
 * here is put back; one that it made for us keeps our signals, so that no handler runs there later. */
static void live(void *user, int thread, int n_threads) {
    pgi_thread_pool *pool = user;
    pgi_signals before;
    pgi_environment environment;
    pgi_signals_block(&before);
    pgi_environment_enter(&environment);
    pthread_mutex_lock(&pool->mutex);
    if (n_threads > 0) pool->n_expected = n_threads;
    pool->n_present++;
    pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->mutex);
    work_until_quit(pool, 1 + thread);
    pgi_environment_restore(&environment);
    pgi_signals_restore(&before);
}

static void *first_thread(void *user) {
    const pgi_thread_pool *pool = user;
#if defined(__linux__)
    pthread_setname_np(pthread_self(), "paligemma"); /* the others take it over */
#endif
    pgi_make_pool_threads(pool->n_threads - 1, live, user);
    return NULL;
}

/* In a child after fork() the parent's threads do not exist: their state is overwritten. */
static void start(pgi_thread_pool *pool) {
    pgi_process_mark_set(&pool->mark);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    atomic_store(&pool->job_state, 0);
    atomic_store(&pool->n_sleeping, 0);
    atomic_store(&pool->caller_sleeps, 0);
    pool->n_present = pool->n_expected = 0;
    pool->spins = pgi_pool_cpus(pgi_cpu_count()) >= pool->n_threads;
    pool->has_others = pgi_own_thread_start(&pool->first, first_thread, pool) == 0;
}

void pgi_thread_pool_init(pgi_thread_pool *pool, int n_threads) {
    memset(pool, 0, sizeof *pool);
    pool->n_threads = n_threads < PGI_MOST_THREADS ? n_threads : PGI_MOST_THREADS;
}

void pgi_thread_pool_start(pgi_thread_pool *pool) {
    if (pool->n_threads == 1) return;
    if (!pgi_process_mark_is_here(&pool->mark)) start(pool);
    if (!pool->has_others) return;
    pthread_mutex_lock(&pool->mutex);
    while (pool->n_expected == 0 || pool->n_present < pool->n_expected) pthread_cond_wait(&pool->done, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

void pgi_thread_pool_free(pgi_thread_pool *pool) {
    const int is_ours = pgi_process_mark_is_here(&pool->mark);
    pgi_process_mark_free(&pool->mark);
    if (!is_ours) return;
    if (pool->has_others) {
        atomic_fetch_or(&pool->job_state, QUIT);
        wake_others(pool, pool->n_threads);
        pthread_join(pool->first, NULL);
    }
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
}

void pgi_thread_pool_run(pgi_thread_pool *pool, pgi_job_fn body, void *context, int64_t helpers) {
    if (pool->n_threads > 1 && !pgi_process_mark_is_here(&pool->mark)) start(pool);
    if (pool->n_threads == 1 || !pool->has_others || helpers < 1) {
        body(context, 0);
        return;
    }
    pool->body = body;
    pool->context = context;
    const uint32_t number = (atomic_load_explicit(&pool->job_state, memory_order_relaxed) & NUMBER) + ONE_NUMBER;
    atomic_store(&pool->job_state, number | OPEN);
    wake_others(pool, helpers);
    body(context, 0);
    if (!is_empty(atomic_fetch_and(&pool->job_state, ~(uint32_t)OPEN), 0)) wait_for_others(pool);
}
