/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenMP makes the threads of a pool. The first of them enters one parallel region; the threads of that region stay in
 * it and wait for work in our own way until the pool is closed. OpenMP's own pools, settings and busy waiting (libgomp:
 * some 10 ms at the end of each region) are not used.
 */
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool_threads.h"
#include "base/thread_stack.h"

/* Under OMP_PROC_BIND the calling thread is held to one place (the first, as a rule), and OpenMP puts the first thread
 * of a region there too. Ours take the places after it. */
static void take_place(int thread) {
#if defined(__linux__)
    const int n_places = omp_get_num_places();
    if (n_places < 1 || omp_get_proc_bind() == omp_proc_bind_false) return;
    const int place = thread % n_places, n_cpus = omp_get_place_num_procs(place);
    int cpus[PGI_MOST_THREADS];
    cpu_set_t set;
    if (n_cpus < 1 || n_cpus > PGI_MOST_THREADS) return;
    omp_get_place_proc_ids(place, cpus);
    CPU_ZERO(&set);
    for (int i = 0; i < n_cpus; i++)
        if (cpus[i] < CPU_SETSIZE) CPU_SET(cpus[i], &set);
    sched_setaffinity(0, sizeof set, &set); /* refused: then it stays where it is */
#else
    (void)thread;
#endif
}

/* LLVM's OpenMP keeps the threads of a finished region and lets them spin for 0.2 s. This switches it off for the
 * regions of the calling thread. GNU's OpenMP ends its threads. */
#if defined(__ELF__)
extern void kmp_set_blocktime(int) __attribute__((weak));
static void spin_in_no_pool(void) {
    if (kmp_set_blocktime) kmp_set_blocktime(0);
}
#else
static void spin_in_no_pool(void) {}
#endif

static void *wait_for_lock(void *lock) {
    pthread_mutex_lock(lock);
    pthread_mutex_unlock(lock);
    return NULL;
}

/* A size of a stack as the environment says it: a number of KiB, or with B, K, M or G behind it. 0: it says nothing
 * that can be read. */
static size_t stack_setting(const char *name) {
    const char *text = getenv(name);
    size_t n = 0, unit = 1 << 10;
    if (!text) return 0;
    while (*text == ' ') text++;
    for (; *text >= '0' && *text <= '9'; text++) {
        if (n > SIZE_MAX / 16) return 0;
        n = 10 * n + (size_t)(*text - '0');
    }
    while (*text == ' ') text++;
    switch (*text | 0x20) {
        case 'b': unit = 1; break;
        case 'm': unit = 1 << 20; break;
        case 'g': unit = 1 << 30; break;
        default: break;
    }
    return n <= SIZE_MAX / 2 / unit ? n * unit : SIZE_MAX / 2;
}

/* The stacks that OpenMP gives its threads: as its settings say, else the default of the process. *least, *most: where
 * they say different things, as another OpenMP reads others. */
static void openmp_stacks(const pthread_attr_t *attributes, size_t *least, size_t *most) {
    static const char *const names[] = {"OMP_STACKSIZE", "GOMP_STACKSIZE", "KMP_STACKSIZE"};
    if (pthread_attr_getstacksize(attributes, most) != 0) *most = PGI_POOL_STACK;
    *least = *most;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const size_t size = stack_setting(names[i]);
        if (size == 0) continue;
        if (size < *least) *least = size;
        if (size > *most) *most = size;
    }
}

/* How many of `wanted` threads the system lets live at once, the calling one counted. OpenMP ends the process when it
 * is refused a thread (ulimit -u, the pids limit of a container), so threads are created and joined here first. Twice
 * as many: the system may still count threads that have been joined, and another pool may start meanwhile. With the
 * stacks that OpenMP's will have: they take address space. None where those would be too small. */
static int try_threads(int wanted) {
    pthread_attr_t attributes;
    size_t least, most_stack;
    pthread_t threads[2 * PGI_MOST_THREADS];
    const int most = 2 * ((wanted < PGI_MOST_THREADS ? wanted : PGI_MOST_THREADS) - 1);
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    int n = 0;
    if (pthread_attr_init(&attributes) != 0) return 1;
    openmp_stacks(&attributes, &least, &most_stack);
    const int fits = least >= PGI_LEAST_STACK && pthread_attr_setstacksize(&attributes, most_stack) == 0;
    pthread_mutex_lock(&lock);
    while (fits && n < most && pthread_create(&threads[n], &attributes, wait_for_lock, &lock) == 0) n++;
    pthread_mutex_unlock(&lock);
    (void)pthread_attr_destroy(&attributes);
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&lock);
    return n / 2 + 1;
}

void pgi_make_pool_threads(int wanted, pgi_thread_fn body, void *user) {
    const int limit = omp_get_thread_limit(); /* OMP_THREAD_LIMIT; beyond it LLVM's prints a warning */
    const int n = try_threads(wanted < limit ? wanted : limit);
    spin_in_no_pool();
#pragma omp parallel num_threads(n)
    {
        const int thread = omp_get_thread_num();
#if defined(__linux__)
        cpu_set_t cpus;
        const int has_cpus = sched_getaffinity(0, sizeof cpus, &cpus) == 0;
#endif
        take_place(1 + thread);
        body(user, thread, omp_get_num_threads());
        /* restored for a thread that LLVM had for the host and lent */
#if defined(__linux__)
        if (has_cpus) sched_setaffinity(0, sizeof cpus, &cpus);
#endif
    }
}

/* The calling thread may be held to one place by OMP_PROC_BIND, ours take the others. */
int pgi_pool_cpus(int n) {
    const int n_places = omp_get_proc_bind() == omp_proc_bind_false ? 0 : omp_get_num_places();
    return n > n_places ? n : n_places;
}
