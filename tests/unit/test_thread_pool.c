/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* lib/base/thread_pool.h and parallel.h: chunks of work on a thread pool, and what a host notices of the threads. */
#include "run_tests.h"

#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/background.h"
#include "base/parallel.h"
#include "sanitized.h"

/* Pools are static, so that the threads of a test that failed stay where they are. */

typedef struct coverage {
    atomic_int seen[1000]; /* how often each item was done */
    atomic_int n_chunks, n_of_others, bad;
    int n_threads;
    int64_t n, grain;
    pg_cancel *cancel;
} coverage;

static pgi_run run_on(pgi_thread_pool *pool, int n_threads) {
    return pgi_run_init(pool, NULL, &(pg_run_options){.n_threads = n_threads});
}

static void cover(void *context, int64_t begin, int64_t end, int thread) {
    coverage *c = context;
    /* a chunk begins at a multiple of the grain whatever the number of threads, or results would differ */
    if (begin % c->grain || end != (begin + c->grain < c->n ? begin + c->grain : c->n)) atomic_store(&c->bad, 1);
    if (thread < 0 || thread >= c->n_threads) atomic_store(&c->bad, 2);
    if (thread > 0) atomic_fetch_add(&c->n_of_others, 1);
    for (int64_t i = begin; i < end; i++) atomic_fetch_add(&c->seen[i], 1);
    if (atomic_fetch_add(&c->n_chunks, 1) == 2 && c->cancel) atomic_store(&c->cancel->requested, 1);
}

static void sleep_ms(int ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL); }

/* As cover(), and long enough for the others to come. */
static void cover_slowly(void *context, int64_t begin, int64_t end, int thread) {
    cover(context, begin, end, thread);
    sleep_ms(1);
}

/* Covers 0..n on the run; whether that was right. */
static int covers(const pgi_run *run, coverage *c, int64_t n, int64_t grain, pgi_task_fn task) {
    memset(c, 0, sizeof *c);
    c->n_threads = run->n_threads;
    c->n = n;
    c->grain = grain;
    int good = pgi_parallel_for(run, n, grain, task, c) == PG_OK && c->bad == 0;
    good &= c->n_chunks == (n + grain - 1) / grain;
    for (int64_t i = 0; i < 1000; i++) good &= c->seen[i] == (i < n);
    return good;
}

/* Whether chunks are covered, by other threads too, once the system has found CPUs for them. */
static int others_come(const pgi_run *run) {
    static coverage c;
    for (int i = 0; i < 100; i++) {
        if (!covers(run, &c, 50, 1, cover_slowly)) return 0;
        if (c.n_of_others > 0) return 1;
    }
    return 0;
}

static void everything_is_covered_once(void **state) {
    (void)state;
    static coverage c;
    static const int64_t sizes[] = {0, 1, 2, 3, 7, 64, 65, 1000}, grains[] = {1, 2, 3, 64, 1000, 5000};
    for (int threads = 1; threads <= 7; threads++) {
        static pgi_thread_pool pool;
        pgi_run run = run_on(&pool, threads);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++)
                assert_true(covers(&run, &c, sizes[s], grains[g], cover));
        assert_true(threads == 1 || others_come(&run));
        pgi_run_free(&run);
    }
}

static void more_threads_than_shares(void **state) {
    static pgi_thread_pool pool;
    pgi_run run = run_on(&pool, 150);
    static coverage c;
    (void)state;
    for (int64_t n = 1; n <= 1000; n += 111) assert_true(covers(&run, &c, n, 1, cover));
    assert_true(covers(&run, &c, 300, 2, cover_slowly));
    pgi_run_free(&run);
}

/* The first chunk of each thread. */
static void note_first(void *context, int64_t begin, int64_t end, int thread) {
    int64_t *first = context;
    (void)end;
    if (first[thread] < 0) first[thread] = begin;
    sleep_ms(1);
}

static void threads_begin_with_their_shares(void **state) {
    static pgi_thread_pool pool;
    pgi_run run = run_on(&pool, 2);
    int came[2] = {0};
    (void)state;
    for (int i = 0; i < 100 && !(came[0] && came[1]); i++) {
        int64_t first[2] = {-1, -1};
        assert_int_equal(pgi_parallel_for(&run, 60, 1, note_first, first), PG_OK);
        for (int t = 0; t < 2; t++) came[t] |= first[t] == 30 * t; /* not, if the other took all of its share */
    }
    assert_true(came[0] && came[1]);
    pgi_run_free(&run);
}

static void one_thread_starts_none(void **state) {
    static pgi_thread_pool pool;
    pgi_run run = run_on(&pool, 1);
    static coverage c;
    (void)state;
    assert_true(covers(&run, &c, 1000, 1, cover));
    assert_int_equal(c.n_of_others, 0);
    assert_int_equal(pool.mark.owner, 0);
    pgi_run_free(&run);
    run = run_on(&pool, 4);
    assert_true(covers(&run, &c, 1000, 1000, cover)); /* nor does a single chunk */
    assert_int_equal(pool.mark.owner, 0);
    pgi_run_free(&run);
}

static void *until_stopped(void *user) {
    pgi_background *thread = user;
    while (!atomic_load(&thread->stop)) usleep(100);
    return NULL;
}

/* Also where the child has its parent's number, as in a PID namespace. */
static void a_background_thread_is_its_parents(void **state) {
    static pgi_background thread;
    int status = 0;
    (void)state;
    pgi_background_start(&thread, until_stopped, &thread);
    assert_true(pgi_process_mark_is_here(&thread.mark));
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        if (thread.mark.page) thread.mark.owner = getpid();
        pgi_background_end(&thread); /* joins nothing */
        _exit(pgi_process_mark_is_here(&thread.mark));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    pgi_background_end(&thread);
    assert_false(pgi_process_mark_is_here(&thread.mark));
    pgi_background_end(&thread); /* nothing is left to end */
}

/* Every job ends whatever the threads are about: joining, leaving, falling asleep, waking. */
static void add_items(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    for (int64_t i = begin; i < end; i++) atomic_fetch_add((atomic_llong *)context, i + 1);
}

static void jobs_follow_each_other(void **state) {
    (void)state;
    for (int threads = 2; threads <= 7; threads += 5) {
        static pgi_thread_pool pool;
        pgi_run run = run_on(&pool, threads);
        for (int64_t i = 0; i < 20000; i++) {
            atomic_llong sum = 0;
            const int64_t n = 2 + i % 7;
            assert_int_equal(pgi_parallel_for(&run, n, 1, add_items, &sum), PG_OK);
            assert_int_equal(atomic_load(&sum), n * (n + 1) / 2);
            if (i % 1000 == 0) sleep_ms(1);
        }
        pgi_run_free(&run);
    }
}

static void pools_come_and_go(void **state) {
    static coverage c;
    (void)state;
    for (int i = 0; i < 300; i++) {
        static pgi_thread_pool pool;
        pgi_run run = run_on(&pool, 2 + i % 3);
        assert_true(covers(&run, &c, i % 9, 1, cover)); /* often closed before its threads are there */
        pgi_run_free(&run);
    }
}

/* A child that ends with status 0 when `body` returned non-zero. */
static void in_child(int (*body)(void *), void *user) {
    pid_t child = fork();
    int how;
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60); /* a hang ends by SIGALRM */
        _exit(body(user) ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_int_equal(how, 0);
}

static int compute_with_few_threads(void *user) {
    static coverage c;
    const rlim_t *allowed = user;
    if (geteuid() == 0 && setuid(65534) != 0) return 1; /* root has no limit; nothing to see then */
    struct rlimit few = {*allowed, *allowed};
    if (setrlimit(RLIMIT_NPROC, &few) != 0) return 1;
    static pgi_thread_pool pool;
    pgi_run run = run_on(&pool, 16);
    int good = covers(&run, &c, 1000, 1, cover) && covers(&run, &c, 50, 1, cover_slowly);
    pgi_run_free(&run);
    return good;
}

/* The call of this number, counted down, and all after it are refused by the linker's --wrap; 0: none. */
static atomic_int refuse_at;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *user);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *user);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *user) {
    if (atomic_load(&refuse_at) > 0) {
        if (atomic_load(&refuse_at) == 1) return EAGAIN;
        atomic_fetch_sub(&refuse_at, 1);
    }
    return __real_pthread_create(thread, attributes, body, user);
}

static void each_thread_may_be_refused(void **state) {
    static coverage c;
    (void)state;
    for (int at = 1; at <= 20; at++) {
        static pgi_thread_pool pool;
        pgi_run run = run_on(&pool, 8);
        atomic_store(&refuse_at, at);
        pgi_thread_pool_start(&pool);
        atomic_store(&refuse_at, 0);
        assert_true(covers(&run, &c, 1000, 1, cover));
        assert_int_equal(at > 1, pool.has_others);
        assert_true(at == 1 || others_come(&run));
        pgi_run_free(&run);
    }
}

static void refused_threads_are_done_without(void **state) {
    (void)state;
    for (rlim_t allowed = 1; allowed <= 5; allowed++) in_child(compute_with_few_threads, &allowed);
}

/* ------------------------------------------------------------------------------------------------------- cancel */

static void cancelled_between_chunks(void **state) {
    (void)state;
    static coverage c;
    for (int threads = 1; threads <= 4; threads++) {
        pg_cancel cancel = {.references = 1};
        static pgi_thread_pool pool;
        pgi_run run = run_on(&pool, threads);
        run.cancel = &cancel;
        memset(&c, 0, sizeof c);
        c.n_threads = threads;
        c.n = 1000;
        c.grain = 1;
        c.cancel = &cancel;
        assert_int_equal(pgi_parallel_for(&run, c.n, c.grain, cover, &c), PG_ERROR_CANCELLED);
        assert_in_range(c.n_chunks, 3, 3 + 2 * threads);
        assert_int_equal(pgi_parallel_for(&run, c.n, c.grain, cover, &c), PG_ERROR_CANCELLED); /* before the first */
        assert_in_range(c.n_chunks, 3, 3 + 2 * threads);
        atomic_store(&cancel.requested, 0);
        run.cancel = NULL;
        assert_true(covers(&run, &c, 1000, 1, cover)); /* the pool is as before */
        pgi_run_free(&run);
    }
}

/* ------------------------------------------------------------------------------------------ what a host notices */

static int compute_on_carried_pool(void *user);

typedef struct carried {
    pgi_run run;
    int generations;
} carried;

static int compute_afresh(void *user) {
    static pgi_thread_pool pool;
    pgi_run run = run_on(&pool, 3);
    (void)user;
    int good = others_come(&run);
    pgi_run_free(&run);
    return good;
}

static int compute_on_carried_pool(void *user) {
    static coverage c;
    carried *it = user;
    int good = others_come(&it->run); /* it has threads here, too */
    if (it->generations-- > 0) in_child(compute_on_carried_pool, it);
    good &= covers(&it->run, &c, 50, 1, cover_slowly);
    pgi_run_free(&it->run);
    return good;
}

static int close_only(void *user) {
    pgi_run_free(&((carried *)user)->run);
    return 1;
}

static void a_forked_child_has_threads(void **state) {
    static pgi_thread_pool pool;
    carried it = {run_on(&pool, 3), 2};
    (void)state;
#ifdef THREAD_SANITIZED
    skip();
#endif
    assert_true(others_come(&it.run));
    in_child(compute_afresh, NULL);
    in_child(close_only, &it);
    in_child(compute_on_carried_pool, &it);
    assert_true(others_come(&it.run)); /* and the parent goes on */
    pgi_run_free(&it.run);
}

static atomic_int n_signals, n_on_others;
static pthread_t host_thread;

static void on_signal(int signal_number) {
    (void)signal_number;
    atomic_fetch_add(pthread_equal(pthread_self(), host_thread) ? &n_signals : &n_on_others, 1);
}

static void signals_are_the_hosts(void **state) {
    static coverage c;
    struct sigaction act = {.sa_handler = on_signal}, before;
    sigset_t one, old;
    static pgi_thread_pool pool;
    pgi_run run = run_on(&pool, 4);
    (void)state;
    host_thread = pthread_self();
    sigaction(SIGUSR1, &act, &before);
    assert_true(covers(&run, &c, 50, 1, cover_slowly));
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &one, &old); /* any other thread that takes signals would get it */
    kill(getpid(), SIGUSR1);
    assert_true(covers(&run, &c, 50, 1, cover_slowly));
    assert_int_equal(n_signals + n_on_others, 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    assert_int_equal(n_signals, 1);
    assert_int_equal(n_on_others, 0);
    for (int i = 0; i < 200; i++) {
        kill(getpid(), SIGUSR1);
        assert_true(covers(&run, &c, 9, 1, cover)); /* threads that are starting, waiting, working */
        if (i % 50 == 49) {
            pgi_run_free(&run);
            run = run_on(&pool, 4);
        }
    }
    assert_int_equal(n_on_others, 0);
    pgi_run_free(&run);
    sigaction(SIGUSR1, &before, NULL);
}

/* Results must not depend on the thread, nor on what the host has set: the others round to nearest. */
static void compare_rounding(void *context, int64_t begin, int64_t end, int thread) {
    coverage *c = context;
    (void)begin, (void)end;
    if (thread > 0 && (fegetround() != FE_TONEAREST || fegetexcept() != 0)) atomic_store(&c->bad, 1);
    sleep_ms(1);
}

static void others_have_the_default_environment(void **state) {
    static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TONEAREST};
    static coverage c;
    static pgi_thread_pool pool;
    (void)state;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        fesetround(modes[i]);
        feenableexcept(FE_OVERFLOW);
        pgi_run run = run_on(&pool, 3); /* threads begin with what their maker has */
        int came = others_come(&run);
        memset(&c, 0, sizeof c);
        pg_status status = pgi_parallel_for(&run, 30, 1, compare_rounding, &c);
        fedisableexcept(FE_OVERFLOW);
        fesetround(FE_TONEAREST);
        pgi_run_free(&run);
        assert_true(came);
        assert_int_equal(status, PG_OK);
        assert_int_equal(c.bad, 0);
    }
}

static void *cover_there(void *user) {
    static _Thread_local coverage c;
    for (int i = 0; i < 50; i++)
        if (!covers(user, &c, 100 + i, 1, cover)) return NULL;
    return user;
}

static void any_thread_may_call_one_after_the_other(void **state) {
    static pgi_thread_pool pool;
    pgi_run run = run_on(&pool, 3);
    (void)state;
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        void *good;
        assert_int_equal(pthread_create(&thread, NULL, cover_there, &run), 0);
        pthread_join(thread, &good);
        assert_non_null(good);
        assert_non_null(cover_there(&run));
    }
    pgi_run_free(&run);
}

static void callers_at_once_have_pools_of_their_own(void **state) {
    enum { N = 4 };
    static pgi_thread_pool pools[N];
    pgi_run runs[N];
    pthread_t threads[N];
    (void)state;
    for (int i = 0; i < N; i++) {
        runs[i] = run_on(&pools[i], 2 + i % 2);
        assert_int_equal(pthread_create(&threads[i], NULL, cover_there, &runs[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        void *good;
        pthread_join(threads[i], &good);
        assert_non_null(good);
        pgi_run_free(&runs[i]);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_covered_once),
        cmocka_unit_test(more_threads_than_shares),
        cmocka_unit_test(threads_begin_with_their_shares),
        cmocka_unit_test(one_thread_starts_none),
        cmocka_unit_test(a_background_thread_is_its_parents),
        cmocka_unit_test(jobs_follow_each_other),
        cmocka_unit_test(pools_come_and_go),
        cmocka_unit_test(each_thread_may_be_refused),
        cmocka_unit_test(refused_threads_are_done_without),
        cmocka_unit_test(cancelled_between_chunks),
        cmocka_unit_test(a_forked_child_has_threads),
        cmocka_unit_test(signals_are_the_hosts),
        cmocka_unit_test(others_have_the_default_environment),
        cmocka_unit_test(any_thread_may_call_one_after_the_other),
        cmocka_unit_test(callers_at_once_have_pools_of_their_own),
    };
    return RUN_TESTS(tests, NULL, NULL);
}
