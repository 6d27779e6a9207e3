/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_worker: callbacks of requests that end before they begin. All are told, their frames are given back at once, and
 * one that forks leaves the parent as it was. */
#include "run_tests.h"

#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sanitized.h"
#include "worker_fixture.h"

static void count_done(void *user, const pg_worker_event *event) {
    if (event->kind == PG_WORKER_EVENT_DONE) atomic_fetch_add((atomic_int *)user, 1);
}

static void wait_for(const atomic_int *number, int wanted) {
    const double begin = now_seconds();
    while (atomic_load(number) < wanted && now_seconds() < begin + 60) usleep(100);
    assert_int_equal(atomic_load(number), wanted);
}

/* Closing takes the requests that wait one by one, and the thread may end meanwhile: none is forgotten. */
static void closing_tells_all(void **state) {
    (void)state;
    enum { N_POLLED = 3000, N_TOLD = 100 };
    for (int round = 0; round < 5; round++) {
        atomic_int n_told = 0;
        pg_worker_options options = worker_options();
        options.max_waiting = N_POLLED + N_TOLD;
        pg_worker *worker = new_worker(&options);
        pg_request_options request = request_options();
        for (int i = 0; i < N_POLLED; i++) submit(worker, "the", &request);
        request.priority = -1;
        request.on_event = count_done;
        request.on_event_user = &n_told;
        for (int i = 0; i < N_TOLD; i++) submit(worker, "the", &request);
        pg_worker_close(&worker);
        assert_int_equal(atomic_load(&n_told), N_TOLD);
    }
}

/* Frames of a stream that replace each other while a thread computes are not kept until it is done. */
static void replaced_frames_do_not_stay(void **state) {
    (void)state;
    enum { WIDTH = 640, HEIGHT = 480, N = 100 };
    static uint8_t pixels[WIDTH * HEIGHT * 3];
    counter memory;
    counter_init(&memory);
    pg_model_options model_options;
    OK(pg_model_options_init(&model_options, sizeof model_options));
    model_options.allocator = &memory.hooks;
    pg_model *counted = NULL;
    OK(pg_model_open(folder, &model_options, &counted));
    pg_worker *worker = NULL;
    pg_worker_options options = worker_options();
    options.max_running = 1;
    OK(pg_worker_create(counted, processor, &options, &worker));
    gate g;
    gate_init(&g);
    submit_held(worker, &g, request_options());
    atomic_int n_told = 0;
    pg_image frame;
    OK(pg_image_from_pixels(&frame, sizeof frame, PG_IMAGE_RGB8, WIDTH, HEIGHT, pixels, 0));
    pg_request_options request = request_options();
    request.stream = 1;
    request.on_event = count_done;
    request.on_event_user = &n_told;
    const long long before = atomic_load(&memory.live_bytes);
    for (int i = 0; i < N; i++) OK(pg_worker_submit(worker, &frame, "the", &request, NULL));
    const long long grown = atomic_load(&memory.live_bytes) - before;
    if (grown > 2 * (long long)sizeof pixels) fail_msg("%lld bytes for one frame that waits", grown);
    gate_open(&g);
    wait_for(&n_told, N);
    pg_worker_close(&worker);
    pg_model_close(&counted);
    assert_true(counter_clean(&memory));
}

#ifndef SANITIZED /* another thread may hold a lock of its malloc when the process forks */
typedef struct forking {
    pg_worker **worker;
    int closes;
    atomic_int child, n_done;
} forking;

static void fork_once(void *user, const pg_worker_event *event) {
    forking *f = user;
    if (event->kind == PG_WORKER_EVENT_TEXT && atomic_load(&f->child) == 0) {
        const pid_t child = fork();
        if (child == 0) {
            if (f->closes) pg_worker_close(f->worker);
            return; /* the only thread of the child ends, and the child with it */
        }
        atomic_store(&f->child, (int)child);
    }
    if (event->kind == PG_WORKER_EVENT_DONE) atomic_fetch_add(&f->n_done, 1);
}

/* A child that a callback forks may close the worker, or not; the parent goes on as if nothing had been. */
static void forking_in_a_callback(void **state) {
    (void)state;
    for (int closes = 0; closes < 2; closes++) {
        pg_worker_options options = worker_options();
        pg_worker *worker = new_worker(&options);
        forking f = {.worker = &worker, .closes = closes};
        pg_request_options request = request_options();
        request.on_event = fork_once;
        request.on_event_user = &f;
        fflush(NULL);
        submit(worker, "the cat", &request);
        submit(worker, "the", &request);
        wait_for(&f.n_done, 2);
        int status = -1;
        assert_int_equal(waitpid((pid_t)atomic_load(&f.child), &status, 0), atomic_load(&f.child));
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("the child ended with %x", (unsigned)status);
        pg_worker_close(&worker);
    }
}
#endif

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closing_tells_all),
        cmocka_unit_test(replaced_frames_do_not_stay),
#ifndef SANITIZED /* another thread may hold a lock of its malloc when the process forks */
        cmocka_unit_test(forking_in_a_callback),
#endif
    };
    return RUN_TESTS(tests, open_tiny, close_tiny);
}
