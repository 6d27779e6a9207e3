/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_worker: objects as they come, priority and CPUs of its threads, and what its calls cost. */
#include "run_tests.h"

#include <dirent.h>
#include <sched.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "worker_fixture.h"

/* ---- objects ---- */

/* Lets the answer be these ids, one after the other. */
typedef struct script {
    int64_t ids[24];
    int64_t n, at;
} script;

static int32_t follow(void *user, int64_t row, const int64_t *ids, int64_t n_ids, uint32_t *mask, int64_t vocab_size) {
    script *s = user;
    (void)row, (void)ids, (void)n_ids;
    if (s->at >= s->n || s->ids[s->at] >= vocab_size) return 1;
    mask[s->ids[s->at] / 32] |= 1u << (s->ids[s->at] % 32);
    s->at++;
    return 0;
}

static void add_token(script *s, const char *piece) {
    OK(pg_processor_get_token_id(processor, piece, &s->ids[s->n]));
    s->n++;
}

static void add_text(script *s, const char *text) {
    size_t n = 0;
    OK(pg_processor_tokenize(processor, text, PG_ENCODE_LITERAL, s->ids + s->n, (size_t)(24 - s->n), &n));
    s->n += (int64_t)n;
}

/* Objects come as soon as a ';' has ended their part, the rest before DONE; they are those of the whole answer. */
static void objects_in(int32_t convention) {
    const float steps = convention == PG_BOX_1023 ? 1023 : 1024;
    script s = {.n = 0};
    static const char *const locs[] = {"<loc0000>", "<loc0001>", "<loc0002>", "<loc0002>"};
    for (int box = 0; box < 2; box++) {
        for (int i = 0; i < 4; i++) add_token(&s, locs[i]);
        add_text(&s, box == 0 ? "cat ;" : "the");
    }
    pg_worker_options options = worker_options();
    options.max_new_tokens = (int32_t)s.n;
    pg_worker *worker = new_worker(&options);
    pg_request_options request = request_options();
    pg_sampling_options sampling;
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    sampling.flags = PG_SAMPLING_IGNORE_EOS;
    sampling.on_mask = follow;
    sampling.on_mask_user = &s;
    request.sampling = &sampling;
    request.flags = PG_REQUEST_OBJECTS;
    request.convention = convention;
    submit(worker, "detect cat", &request);
    pg_worker_event event = {.struct_size = sizeof event};
    ended end = {.ticket = 0};
    int64_t told_at[2] = {0, 0};
    for (int n_objects = 0; end.ticket == 0;) {
        OK(pg_worker_wait(worker, 60, &event));
        if (event.kind == PG_WORKER_EVENT_OBJECT) {
            assert_true(n_objects < 2);
            assert_string_equal(event.object->label, n_objects == 0 ? "cat" : "the");
            assert_true(event.object->locs[1] == 1 && event.object->locs[3] == 2);
            assert_float_equal(event.object->box[0], 24 * 1 / steps, 1e-5);
            assert_float_equal(event.object->box[3], 18 * 2 / steps, 1e-5);
            assert_true(event.object->score > 0 && event.object->score <= 1);
            told_at[n_objects++] = (int64_t)strlen(end.pieces);
        }
        take(&event, &end);
    }
    if (end.status != PG_OK) fail_msg("%s", end.text);
    assert_int_equal(end.n_objects, 2);
    assert_true(told_at[0] < told_at[1] && told_at[1] == (int64_t)strlen(end.text));
    assert_int_equal(end.stop, PG_STOP_LENGTH);
    pg_worker_close(&worker);
}

static void objects_of_an_answer(void **state) {
    (void)state;
    objects_in(PG_BOX_1024);
    objects_in(PG_BOX_1023);
}

/* ---- threads ---- */

#if defined(__linux__)
/* The nice values and numbers of CPUs of this process's threads but the calling one. */
static int other_threads(int nices[16], int cpus[16]) {
    int n = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; (entry = readdir(tasks)) && n < 16;) {
        const pid_t id = (pid_t)atoi(entry->d_name);
        cpu_set_t set;
        if (id <= 0 || id == getpid() || sched_getaffinity(id, sizeof set, &set) != 0) continue;
        nices[n] = getpriority(PRIO_PROCESS, (id_t)id);
        cpus[n++] = CPU_COUNT(&set);
    }
    closedir(tasks);
    return n;
}

/* Background threads are nicer and bound, those of their sessions too; the host's thread stays as it is. */
static void priority_and_cpus(void **state) {
    (void)state;
    cpu_set_t before, after;
    int nices[16], cpus[16], cpu = 0;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    while (!CPU_ISSET(cpu, &before)) cpu++;
    settled_threads(); /* those of the worker before are gone */
    const int n_before = other_threads(nices, cpus), nice_before = getpriority(PRIO_PROCESS, 0);
    for (int leave_free = 0; leave_free < 2; leave_free++) {
        pg_worker_options options = worker_options();
        const int32_t list[] = {cpu};
        options.n_threads = 3;
        options.nice = 2;
        options.flags = leave_free ? PG_WORKER_LEAVE_CPU_FREE : 0;
        options.cpus = leave_free ? NULL : list;
        options.n_cpus = leave_free ? 0 : 1;
        pg_worker *worker = new_worker(&options);
        const int n = other_threads(nices, cpus), n_cpus = CPU_COUNT(&before);
        assert_true(n >= n_before + 3);
        int n_nice = 0, n_bound = 0;
        for (int i = 0; i < n; i++) {
            n_nice += nices[i] == (nice_before + 2 < 19 ? nice_before + 2 : 19);
            n_bound += cpus[i] == (leave_free ? (n_cpus > 1 ? n_cpus - 1 : 1) : 1);
        }
        assert_true(n_nice >= 3 && n_bound >= 3);
        submit(worker, "the", NULL);
        assert_int_equal(next_end(worker).status, PG_OK);
        pg_worker_close(&worker);
    }
    assert_int_equal(getpriority(PRIO_PROCESS, 0), nice_before);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
}
#endif

/* ---- what it costs ---- */

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A poll that finds nothing, and one that finds an event, while the worker computes: far below the 20 us that a frame
 * can give. The middle one of each is looked at: a thread may be off its CPU for a while. */
static void a_poll_is_short(void **state) {
    (void)state;
    enum { MOST = 1 << 18 };
    static double empty[MOST], found[MOST];
    int n_empty = 0, n_found = 0, n_ends = 0;
    pg_worker_options options = worker_options();
    options.max_new_tokens = 400;
    options.max_waiting = 8;
    pg_worker *worker = new_worker(&options);
    pg_sampling_options sampling;
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    sampling.flags = PG_SAMPLING_IGNORE_EOS;
    pg_request_options request = request_options();
    request.sampling = &sampling;
    for (int i = 0; i < 8; i++) submit(worker, "the cat", &request);
    pg_worker_event event = {.struct_size = sizeof event};
    const double late = now_seconds() + 60;
    while (n_ends < 8 && n_empty < MOST && n_found < MOST && now_seconds() < late) {
        const double begin = now_seconds();
        const pg_status status = pg_worker_poll(worker, &event);
        const double took = now_seconds() - begin;
        if (status == PG_OK)
            found[n_found++] = took;
        else
            empty[n_empty++] = took;
        n_ends += status == PG_OK && event.kind == PG_WORKER_EVENT_DONE;
        if (status != PG_OK) usleep(50); /* as a loop that does something else */
    }
    pg_worker_close(&worker);
    assert_true(n_found > 8 && n_empty > 8);
    qsort(empty, (size_t)n_empty, sizeof *empty, by_value);
    qsort(found, (size_t)n_found, sizeof *found, by_value);
    print_message(
        "poll without an event: %.2f us, 99%% below %.2f us, worst %.1f us of %d; with one: %.2f us, 99%% below "
        "%.2f us, worst %.1f us of %d\n",
        1e6 * empty[n_empty / 2], 1e6 * empty[n_empty * 99 / 100], 1e6 * empty[n_empty - 1], n_empty,
        1e6 * found[n_found / 2], 1e6 * found[n_found * 99 / 100], 1e6 * found[n_found - 1], n_found);
    assert_true(empty[n_empty / 2] < 20e-6 && found[n_found / 2] < 20e-6);
}

/* Seconds of CPU time of this thread for n requests that wait and then are cancelled, the oldest first. */
static double queue_seconds(int n) {
    pg_worker_options options = worker_options();
    options.max_running = 1;
    options.max_waiting = n;
    gate g;
    gate_init(&g);
    pg_worker *worker = new_worker(&options);
    const int64_t held = submit_held(worker, &g, request_options());
    pg_request_options request = request_options();
    pg_worker_event event = {.struct_size = sizeof event};
    struct timespec begin, end;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    for (int i = 0; i < n; i++) {
        request.priority = i * 7919 % 101;
        request.stream = 1 + i;
        request.deadline = 1000 + i % 97;
        request.flags = PG_REQUEST_BORROW;
        submit(worker, "the", &request);
    }
    for (int i = 0; i < n; i++) OK(pg_worker_cancel(worker, held + 1 + i));
    for (int i = 0; i < n; i++) OK(pg_worker_poll(worker, &event));
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    gate_open(&g);
    next_end(worker);
    no_more_events(worker);
    pg_worker_close(&worker);
    return (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
}

/* Four times as many requests take some four times as long, not sixteen. */
static void a_long_queue(void **state) {
    (void)state;
    double least = INFINITY;
    for (int i = 0; i < 5 && least > 8; i++) {
        const double few = queue_seconds(4000), many = queue_seconds(16000);
        if (many / few < least) least = many / few;
    }
    if (!(least <= 8)) fail_msg("4 times as many requests took %.1f times as long, expected at most 8", least);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_of_an_answer),
#if defined(__linux__)
        cmocka_unit_test(priority_and_cpus),
#endif
        cmocka_unit_test(a_poll_is_short),
        cmocka_unit_test(a_long_queue),
    };
    return RUN_TESTS(tests, open_tiny, close_tiny);
}
