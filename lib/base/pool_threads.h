/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Who makes the threads of a pool: OpenMP (pool_threads_openmp.c) or we ourselves (pool_threads_pthread.c), chosen by
 * -Dthreads=openmp|pthread. Results and kernels know nothing of it.
 */
#ifndef PGI_BASE_POOL_THREADS_H
#define PGI_BASE_POOL_THREADS_H

enum { PGI_MOST_THREADS = 1024 }; /* of a pool; the API allows no more */

/* The whole life of a thread. n_threads: how many there are, said to one of them at least; 0: not known here. */
typedef void (*pgi_thread_fn)(void *user, int thread, int n_threads);

/* Calls body(user, thread, ...) on the calling thread, which is number 0, and on up to wanted - 1 new ones, as many as
 * the system gives. Returns when all have ended. */
void pgi_make_pool_threads(int wanted, pgi_thread_fn body, void *user);

/* CPUs that a pool can count on, where the calling thread may use n. */
int pgi_pool_cpus(int n);

#endif
