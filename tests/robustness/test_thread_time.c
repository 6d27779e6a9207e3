/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the threads of a computation cost a host while they wait, and how soon they stop: tests that measure time, and
 * so are none for a busy machine's unit suite. It looks inside the library (base/parallel.h). */
#include "run_tests.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base/parallel.h"

/* Thread pools are static, so that the threads of a test that failed stay where they are. */

static pgi_run run_on(pgi_thread_pool *pool, int n_threads) {
    return pgi_run_init(pool, NULL, &(pg_run_options){.n_threads = n_threads});
}

static void sleep_ms(int ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL); }

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A chunk that takes a millisecond, long enough for the other threads to come. `context`: counts the chunks. */
static void count_slowly(void *context, int64_t begin, int64_t end, int thread) {
    (void)begin, (void)end, (void)thread;
    atomic_fetch_add((atomic_int *)context, 1);
    sleep_ms(1);
}

static void *cancel_soon(void *cancel) {
    sleep_ms(20);
    atomic_store(&((pg_cancel *)cancel)->requested, 1);
    return NULL;
}

static void another_thread_cancels(void **state) {
    pg_cancel cancel = {.references = 1};
    static pgi_thread_pool pool;
    pgi_run run = run_on(&pool, 3);
    atomic_int n_chunks = 0;
    pthread_t thread;
    (void)state;
    run.cancel = &cancel;
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &cancel), 0);
    assert_int_equal(pgi_parallel_for(&run, 1000, 1, count_slowly, &n_chunks), PG_ERROR_CANCELLED);
    assert_in_range(n_chunks, 1, 999);
    pthread_join(thread, NULL);
    pgi_run_free(&run);
}

/* context: the chunk that sleeps. */
static void sleep_in_a_chunk(void *context, int64_t begin, int64_t end, int thread) {
    (void)end, (void)thread;
    if (begin == *(const int *)context) sleep_ms(60);
}

/* A thread that waits for another, or for work, leaves the CPU to the host. */
static void waiting_burns_no_cpu(void **state) {
    static pgi_thread_pool pool;
    pgi_run run = run_on(&pool, 4);
    atomic_int n_chunks = 0;
    (void)state;
    assert_int_equal(pgi_parallel_for(&run, 50, 1, count_slowly, &n_chunks), PG_OK); /* all threads are there */
    assert_int_equal(n_chunks, 50);
    double cpu = cpu_seconds();
    sleep_ms(100);
    assert_true(cpu_seconds() - cpu < 0.002);
    for (int i = 0; i < 4; i++) { /* the caller begins with the chunk that sleeps, then each of the others */
        cpu = cpu_seconds();
        assert_int_equal(pgi_parallel_for(&run, 4, 1, sleep_in_a_chunk, &i), PG_OK);
        assert_true(cpu_seconds() - cpu < 0.002);
    }
    pgi_run_free(&run);
    cpu = cpu_seconds();
    sleep_ms(100); /* nor is there anything left of a pool */
    assert_true(cpu_seconds() - cpu < 0.002);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_thread_cancels),
        cmocka_unit_test(waiting_burns_no_cpu),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
