/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Who makes the threads of a pool: OpenMP (pool_threads_openmp.c) or the pool itself (pool_threads_pthread.c), chosen
 * by -Dthreads=openmp|pthread. Results and kernels know nothing of it.
 */
#ifndef PGI_BASE_POOL_THREADS_H
#define PGI_BASE_POOL_THREADS_H

#include "base/thread_pool.h"

enum { PGI_MOST_THREADS = 1024 }; /* of a pool; the API allows no more */

/* On the first of the other threads: makes the rest of pool->n_threads - 1, or as many as the system gives. Each of
 * them, the first too, calls pgi_pool_work(). Returns when all have ended. */
void pgi_pool_make_threads(pgi_thread_pool *pool);

/* Does a thread's part of all jobs until the pool ends; 0 < thread < pool->n_threads. n_expected: how many other
 * threads there are, said by at least one that knows it; 0: not known here. */
void pgi_pool_work(pgi_thread_pool *pool, int thread, int n_expected);

/* CPUs that a pool can count on, where the calling thread may use n. */
int pgi_pool_cpus(int n);

#endif
