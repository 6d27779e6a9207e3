/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread pool: the calling thread and others of our own that share its work. Each session has one, and each call that
 * computes without a session; nothing about it is global.
 *
 * Who makes the threads is behind pool_threads.h; how they wait and work is the same for all.
 */
#ifndef PGI_BASE_THREAD_POOL_H
#define PGI_BASE_THREAD_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/process_mark.h"

/* A part of the work, done by thread `thread`: 0 is the caller. */
typedef void (*pgi_job_fn)(void *context, int thread);

/* Private to thread_pool.c; here so that a session holds it and nothing is allocated later. */
typedef struct pgi_thread_pool {
    int n_threads;             /* the caller counted; 1: there are no others */
    int spins;                 /* whether threads wait busily at first: CPUs are not fewer than threads */
    pgi_process_mark mark;     /* of the process whose threads these are */
    int has_others;            /* whether the system gave us a thread, in this process */
    int n_present, n_expected; /* of the others, under the mutex; expected 0: not known yet */
    pthread_t first;           /* of the others; makes the rest of them */
    pthread_mutex_t mutex;
    pthread_cond_t work, done;
    pgi_job_fn body; /* of the job, as the next two; read only by threads that are counted in `job_state` */
    void *context;
    char line1[64];        /* what follows is written by all threads: apart from the rest in the cache */
    atomic_uint job_state; /* the job's number, whether it may be entered, how many other threads are in it */
    char line2[64];
    atomic_int n_sleeping; /* of the others */
    atomic_int caller_sleeps;
} pgi_thread_pool;

/* A thread pool of up to n_threads >= 1, the calling thread counted. No thread is started yet, nothing can fail. */
void pgi_thread_pool_init(pgi_thread_pool *pool, int n_threads);

/* Starts the threads now, and waits until they are there: what is allocated for them is allocated then. */
void pgi_thread_pool_start(pgi_thread_pool *pool);

/* Ends the threads and waits for that. In a child of the process that started them there is nothing to end. */
void pgi_thread_pool_free(pgi_thread_pool *pool);

/*
 * Calls body(context, 0) on this thread, and body(context, t), 0 < t < n_threads, on those of the pool that come while
 * that runs; returns when all that came are done. So `body` divides the work as it goes, and does all of it when nobody
 * comes: a system may refuse threads, or have no CPU for them now. At most `helpers` sleeping threads are woken.
 * The first call starts the threads where pgi_thread_pool_start() did not; so does the first one in a child after
 * fork(). One job at a time, from any thread.
 */
void pgi_thread_pool_run(pgi_thread_pool *pool, pgi_job_fn body, void *context, int64_t helpers);

#endif
