/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_worker: what becomes of each request, in which order, and with which words. */
#include "run_tests.h"

#include <sched.h>

#include "worker_fixture.h"

static const char *const prompts[] = {"the", "the cat", "cat in the", "in", "the the the cat", "cat cat"};
enum { N_PROMPTS = 6 };

/* ---- answers ---- */

/* What pg_generate() says to the same. */
static void generated(const char *prompt, const pg_sampling_options *sampling, int32_t max_new_tokens, ended *out) {
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_generate_options options;
    pg_result_info info = {.struct_size = sizeof info};
    OK(pg_generate_options_init(&options, sizeof options));
    options.max_new_tokens = max_new_tokens;
    options.sampling = sampling;
    OK(pg_processor_encode(processor, &image, prompt, NULL, &inputs));
    OK(pg_generate(model, processor, inputs, &options, &result));
    OK(pg_result_get_info(result, 0, &info));
    *out = (ended){.stop = info.stop, .n_tokens = info.n_new_tokens};
    snprintf(out->text, sizeof out->text, "%s", pg_result_get_text(result, 0));
    pg_result_close(&result);
    pg_inputs_close(&inputs);
}

static void same_answer(const ended *found, const ended *wanted) {
    if (found->status != PG_OK) fail_msg("%s: %s", pg_status_name(found->status), found->text);
    assert_string_equal(found->text, wanted->text);
    assert_int_equal(found->stop, wanted->stop);
    assert_int_equal(found->n_tokens, wanted->n_tokens);
}

static pg_sampling_options drawn(uint64_t seed) {
    pg_sampling_options sampling;
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    sampling.flags = PG_SAMPLING_RANDOM;
    sampling.seed = seed;
    sampling.temperature = 2;
    return sampling;
}

/* Requests that run together, of several lengths, greedy and drawn, get the answers that they get alone. */
static void answers_are_those_of_generate(void **state) {
    (void)state;
    enum { N = 3 * N_PROMPTS };
    pg_worker_options options = worker_options();
    options.max_waiting = N;
    options.n_threads = 2;
    static ended wanted[N], found[N + 1];
    memset(found, 0, sizeof found);
    gate g;
    gate_init(&g);
    pg_worker *worker = new_worker(&options);
    const int64_t held = submit_held(worker, &g, request_options());
    for (int i = 0; i < N; i++) {
        pg_request_options request = request_options();
        pg_sampling_options sampling = drawn((uint64_t)i);
        int64_t ids[] = {5, 7};
        request.max_new_tokens = 1 + i % 8;
        request.user = 1000 + (uint64_t)i;
        sampling.suppressed_ids = ids; /* copied: gone when it runs */
        sampling.n_suppressed_ids = 2;
        if (i % 3) request.sampling = &sampling;
        generated(prompts[i % N_PROMPTS], request.sampling, request.max_new_tokens, &wanted[i]);
        assert_int_equal(submit(worker, prompts[i % N_PROMPTS], &request), held + 1 + i);
        memset(ids, 0, sizeof ids);
        memset(&sampling, 0, sizeof sampling);
    }
    gate_open(&g);
    pg_worker_event event = {.struct_size = sizeof event};
    for (int n_done = 0; n_done < N + 1;) {
        OK(pg_worker_wait(worker, 60, &event));
        assert_true(event.ticket >= 1 && event.ticket <= N + 1);
        assert_int_equal(found[event.ticket - 1].ticket, 0); /* nothing comes behind DONE */
        take(&event, &found[event.ticket - 1]);
        n_done += event.kind == PG_WORKER_EVENT_DONE;
    }
    for (int i = 0; i < N; i++) {
        same_answer(&found[i + 1], &wanted[i]);
        assert_string_equal(found[i + 1].pieces, found[i + 1].text);
        assert_true(found[i + 1].user == 1000 + (uint64_t)i);
    }
    pg_worker_info info = {.struct_size = sizeof info};
    OK(pg_worker_get_info(worker, &info));
    assert_true(info.n_step_rows > info.n_steps); /* some rows stepped together */
    no_more_events(worker);
    pg_worker_close(&worker);
}

/* ---- order ---- */

static void by_priority_then_age(void **state) {
    (void)state;
    gate g;
    pg_worker *worker = new_gated_worker(&g);
    int64_t tickets[6];
    static const int32_t priorities[] = {0, 3, -2, 3, 1};
    static const int order[] = {0, 2, 4, 5, 1, 3}; /* of tickets */
    tickets[0] = submit_held(worker, &g, request_options());
    for (int i = 0; i < 5; i++) {
        pg_request_options request = request_options();
        request.priority = priorities[i];
        tickets[i + 1] = submit(worker, "the", &request);
    }
    gate_open(&g);
    for (int i = 0; i < 6; i++) assert_int_equal(next_end(worker).ticket, tickets[order[i]]);
    no_more_events(worker);
    pg_worker_close(&worker);
}

/* While one of higher priority runs, others wait though there is room; of the same they join it. */
static void lower_priority_waits(void **state) {
    (void)state;
    pg_worker_options options = worker_options();
    gate g;
    gate_init(&g);
    pg_worker *worker = new_worker(&options);
    pg_request_options request = request_options();
    request.priority = 2;
    request.max_new_tokens = 8;
    const int64_t first = submit_held(worker, &g, request);
    request.max_new_tokens = 1;
    request.priority = 1;
    const int64_t low = submit(worker, "the", &request);
    request.priority = 2;
    const int64_t same = submit(worker, "the", &request);
    gate_open(&g);
    assert_int_equal(next_end(worker).ticket, same);
    assert_int_equal(next_end(worker).ticket, first);
    assert_int_equal(next_end(worker).ticket, low);
    no_more_events(worker);
    pg_worker_close(&worker);
}

static void the_newest_of_a_stream(void **state) {
    (void)state;
    pg_worker_options options = worker_options();
    options.max_running = 1;
    options.max_waiting = 2;
    gate g;
    gate_init(&g);
    pg_worker *worker = new_worker(&options);
    pg_request_options request = request_options();
    request.stream = 7;
    const int64_t running = submit_held(worker, &g, request);
    const int64_t first = submit(worker, "the", &request);
    request.stream = 8;
    const int64_t other = submit(worker, "the", &request);
    request.stream = 7; /* the queue is full, but this one takes the place of another */
    const int64_t second = submit(worker, "cat", &request);
    ended end = next_end(worker);
    assert_int_equal(end.ticket, first);
    assert_int_equal(end.status, PG_ERROR_REPLACED);
    assert_non_null(strstr(end.text, "a newer request of stream 7, ticket 4"));
    request.flags = PG_REQUEST_CANCEL_RUNNING;
    const int64_t third = submit(worker, "cat", &request);
    assert_int_equal(next_end(worker).ticket, second);
    gate_open(&g);
    end = next_end(worker);
    assert_int_equal(end.ticket, running);
    assert_int_equal(end.status, PG_ERROR_REPLACED);
    end = next_end(worker); /* it has the place of the first, too, which came before the other */
    assert_int_equal(end.ticket, third);
    assert_int_equal(end.status, PG_OK);
    assert_int_equal(next_end(worker).ticket, other);
    no_more_events(worker);
    pg_worker_info info = {.struct_size = sizeof info};
    OK(pg_worker_get_info(worker, &info));
    assert_int_equal(info.n_replaced, 3);
    pg_worker_close(&worker);
}

/* ---- ends ---- */

static int is_held(gate *g) {
    pthread_mutex_lock(&g->mutex);
    const int held = g->n_held > 0;
    pthread_mutex_unlock(&g->mutex);
    return held;
}

/* Submits a request that reaches the gate before its deadline, which is longer where the machine is slower. */
static int64_t submit_held_in_time(pg_worker *worker, gate *g, pg_request_options *request) {
    pg_worker_info info = {.struct_size = sizeof info};
    request->sampling = &g->sampling;
    for (request->deadline = 0.02;; request->deadline *= 4) {
        const int64_t ticket = submit(worker, "the cat", request), n_late = info.n_late;
        do OK(pg_worker_get_info(worker, &info));
        while (!is_held(g) && info.n_late == n_late);
        if (info.n_late == n_late) return ticket;
        assert_int_equal(next_end(worker).status, PG_ERROR_DEADLINE);
    }
}

static void deadlines(void **state) {
    (void)state;
    gate g;
    pg_worker *worker = new_gated_worker(&g);
    pg_request_options request = request_options();
    char ran[80], waited[80];
    const int64_t running = submit_held_in_time(worker, &g, &request);
    const int64_t waiting = submit(worker, "the", &request);
    snprintf(ran, sizeof ran, "ran when its deadline passed, %g s", request.deadline);
    snprintf(waited, sizeof waited, "still waited when its deadline passed, %g s", request.deadline);
    const double begin = now_seconds();
    while (now_seconds() < begin + request.deadline + 0.03) continue;
    request.deadline = 600;
    const int64_t in_time = submit(worker, "the", &request);
    gate_open(&g);
    for (int i = 0; i < 3; i++) {
        const ended end = next_end(worker);
        assert_int_equal(end.status, end.ticket == in_time ? PG_OK : PG_ERROR_DEADLINE);
        if (end.ticket == running) assert_non_null(strstr(end.text, ran));
        if (end.ticket == waiting) assert_non_null(strstr(end.text, waited));
    }
    no_more_events(worker);
    pg_worker_close(&worker);
}

static void cancelling(void **state) {
    (void)state;
    gate g;
    pg_worker *worker = new_gated_worker(&g);
    const int64_t running = submit_held(worker, &g, request_options());
    const int64_t waiting = submit(worker, "the", NULL), left = submit(worker, "the", NULL);
    OK(pg_worker_cancel(worker, waiting));
    ended end = next_end(worker); /* at once: nothing runs */
    assert_int_equal(end.ticket, waiting);
    assert_int_equal(end.status, PG_ERROR_CANCELLED);
    assert_string_equal(end.text, "cancelled by request while it waited");
    OK(pg_worker_cancel(worker, running));
    OK(pg_worker_cancel(worker, running));
    gate_open(&g);
    end = next_end(worker);
    assert_int_equal(end.ticket, running);
    assert_int_equal(end.status, PG_ERROR_CANCELLED);
    assert_string_equal(end.text, "ticket 1 was cancelled by request");
    assert_int_equal(next_end(worker).ticket, left);
    OK(pg_worker_cancel(worker, left)); /* it has ended */
    no_more_events(worker);
    ERROR(pg_worker_cancel(worker, left + 1), PG_ERROR_ARGUMENT);
    ERROR(pg_worker_cancel(worker, 0), PG_ERROR_ARGUMENT);
    ERROR(pg_worker_cancel(worker, -1), PG_ERROR_ARGUMENT);
    pg_worker_close(&worker);
}

static void a_full_queue(void **state) {
    (void)state;
    pg_worker_options options = worker_options();
    options.max_running = 1;
    options.max_waiting = 2;
    gate g;
    gate_init(&g);
    pg_worker *worker = new_worker(&options);
    int64_t ticket = -5;
    submit_held(worker, &g, request_options());
    submit(worker, "the", NULL);
    submit(worker, "the", NULL);
    ERROR(pg_worker_submit(worker, &image, "the", NULL, &ticket), PG_ERROR_BUSY);
    assert_non_null(strstr(pg_last_error(), "found 2 requests that wait, expected fewer than max_waiting, 2"));
    assert_int_equal(ticket, -5);
    gate_open(&g);
    for (int i = 0; i < 3; i++) assert_int_equal(next_end(worker).status, PG_OK);
    /* and while nobody polls: 2 that wait and 1 that runs may have ended */
    pg_worker_info info = {.struct_size = sizeof info};
    for (int i = 0; i < 3; i++) {
        OK(pg_worker_submit(worker, &image, "the", NULL, &ticket));
        OK(pg_worker_cancel(worker, ticket));
        do OK(pg_worker_get_info(worker, &info));
        while (info.n_not_polled < i + 1);
    }
    ERROR(pg_worker_submit(worker, &image, "the", NULL, &ticket), PG_ERROR_BUSY);
    assert_non_null(strstr(pg_last_error(), "found 3 requests that have ended and whose events were not polled"));
    assert_int_equal(info.n_not_polled, 3);
    assert_int_equal(info.n_busy, 1);
    for (int i = 0; i < 3; i++) next_end(worker);
    no_more_events(worker);
    pg_worker_close(&worker);
}

static void refused_images_and_prompts(void **state) {
    (void)state;
    pg_worker *worker = new_worker(&(pg_worker_options){.struct_size = sizeof(pg_worker_options), .n_threads = 1});
    static const uint8_t junk[] = "no image", pixels[48];
    pg_image bad;
    pg_encode_options encode;
    pg_request_options request = request_options();
    OK(pg_image_from_bytes(&bad, sizeof bad, junk, sizeof junk));
    OK(pg_worker_submit(worker, &bad, "the", NULL, NULL));
    assert_int_equal(next_end(worker).status, PG_ERROR_FORMAT);
    OK(pg_image_from_path(&bad, sizeof bad, "/no/such/image.png"));
    OK(pg_worker_submit(worker, &bad, "the", NULL, NULL));
    ended end = next_end(worker);
    assert_int_equal(end.status, PG_ERROR_NOT_FOUND);
    assert_non_null(strstr(end.text, "/no/such/image.png"));
    OK(pg_worker_submit(worker, &image, "a\xff", NULL, NULL));
    end = next_end(worker);
    assert_int_equal(end.status, PG_ERROR_ARGUMENT);
    assert_non_null(strstr(end.text, "UTF-8"));
    OK(pg_encode_options_init(&encode, sizeof encode));
    encode.max_tokens = 3;
    request.encode = &encode;
    OK(pg_worker_submit(worker, &image, "the", &request, NULL));
    assert_int_equal(next_end(worker).status, PG_ERROR_LIMIT);
    /* frames are looked at when they are copied */
    OK(pg_image_from_pixels(&bad, sizeof bad, PG_IMAGE_RGB8, 4, 4, pixels, 0));
    bad.n_bytes = 47;
    ERROR(pg_worker_submit(worker, &bad, "the", NULL, NULL), PG_ERROR_ARGUMENT);
    bad.n_bytes = 0;
    bad.format = 77;
    ERROR(pg_worker_submit(worker, &bad, "the", NULL, NULL), PG_ERROR_ARGUMENT);
    bad.format = PG_IMAGE_RGB8;
    bad.width = 0;
    ERROR(pg_worker_submit(worker, &bad, "the", NULL, NULL), PG_ERROR_ARGUMENT);
    bad.width = bad.height = 1 << 15;
    ERROR(pg_worker_submit(worker, &bad, "the", NULL, NULL), PG_ERROR_LIMIT);
    no_more_events(worker);
    pg_worker_close(&worker);
}

/* A frame that is copied may change when it was submitted. */
static void frames_are_copied(void **state) {
    (void)state;
    enum { W = 10, H = 6, STRIDE = 40 };
    pg_worker_options options = worker_options();
    options.max_running = 1;
    uint8_t pixels[H * STRIDE];
    rng random = {3};
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)rng_below(&random, 256);
    const pg_image whole = image;
    ended wanted;
    OK(pg_image_from_pixels(&image, sizeof image, PG_IMAGE_BGR8, W, H, pixels + (H - 1) * STRIDE, -STRIDE));
    generated("the cat", NULL, 8, &wanted);
    gate g;
    gate_init(&g);
    pg_worker *worker = new_worker(&options);
    submit_held(worker, &g, request_options());
    submit(worker, "the cat", NULL);
    memset(pixels, 0, sizeof pixels);
    gate_open(&g);
    next_end(worker);
    const ended copied = next_end(worker);
    same_answer(&copied, &wanted);
    image = whole;
    pg_worker_close(&worker);
}

/* ---- callbacks and closing ---- */

typedef struct told {
    pthread_mutex_t mutex;
    ended end;
    int n_done;
    pg_worker *closes; /* the worker, to be closed by the callback */
    pthread_t on;
} told;

static void on_event(void *user, const pg_worker_event *event) {
    told *t = user;
    pthread_mutex_lock(&t->mutex);
    assert_int_equal(t->n_done, 0);
    take(event, &t->end);
    t->on = pthread_self();
    if (event->kind == PG_WORKER_EVENT_DONE) t->n_done++;
    if (t->closes) pg_worker_close(&t->closes);
    pthread_mutex_unlock(&t->mutex);
}

static int n_done(told *t) {
    pthread_mutex_lock(&t->mutex);
    const int n = t->n_done;
    pthread_mutex_unlock(&t->mutex);
    return n;
}

static void wait_for_done(told *t) {
    const double begin = now_seconds();
    while (n_done(t) == 0 && now_seconds() < begin + 60) sched_yield();
    assert_int_equal(n_done(t), 1);
}

static void events_by_callback(void **state) {
    (void)state;
    told first = {.mutex = PTHREAD_MUTEX_INITIALIZER}, second = first, third = first;
    pg_worker_options options = worker_options();
    options.max_running = 1;
    ended wanted;
    generated("the cat", NULL, 8, &wanted);
    pg_worker *worker = new_worker(&options);
    pg_request_options request = request_options();
    request.on_event = on_event;
    request.on_event_user = &first;
    submit(worker, "the cat", &request);
    wait_for_done(&first);
    same_answer(&first.end, &wanted);
    assert_string_equal(first.end.pieces, wanted.text);
    assert_false(pthread_equal(first.on, pthread_self()));
    /* one that ends while it waits is told on a background thread, too */
    gate g;
    gate_init(&g);
    submit_held(worker, &g, request_options());
    request.on_event_user = &second;
    const int64_t ticket = submit(worker, "the", &request);
    OK(pg_worker_cancel(worker, ticket));
    request.on_event_user = &third; /* ended by closing */
    submit(worker, "the", &request);
    gate_open(&g);
    wait_for_done(&second);
    assert_int_equal(second.end.status, PG_ERROR_CANCELLED);
    assert_false(pthread_equal(second.on, pthread_self()));
    pg_worker_close(&worker);
    assert_int_equal(n_done(&third), 1);
}

/* Closing ends what runs and waits; those with on_event are told. */
static void closing_while_busy(void **state) {
    (void)state;
    counter memory;
    counter_init(&memory);
    pg_model_options open;
    pg_model *own = NULL;
    OK(pg_model_options_init(&open, sizeof open));
    open.allocator = &memory.hooks;
    OK(pg_model_open(folder, &open, &own));
    for (int n = 1; n <= 3; n++) {
        told calls[8];
        pg_worker_options options = worker_options();
        options.n_workers = n;
        options.max_new_tokens = 4000; /* they do not end by themselves */
        pg_worker *worker = NULL;
        OK(pg_worker_create(own, processor, &options, &worker));
        pg_sampling_options sampling;
        OK(pg_sampling_options_init(&sampling, sizeof sampling));
        sampling.flags = PG_SAMPLING_IGNORE_EOS;
        for (int i = 0; i < 8; i++) {
            pg_request_options request = request_options();
            calls[i] = (told){.mutex = PTHREAD_MUTEX_INITIALIZER};
            request.sampling = &sampling;
            if (i % 2) request.on_event = on_event;
            request.on_event_user = &calls[i];
            submit(worker, "the", &request);
        }
        pg_worker_info info = {.struct_size = sizeof info};
        do OK(pg_worker_get_info(worker, &info));
        while (info.n_steps < 3);
        pg_worker_close(&worker);
        assert_null(worker);
        for (int i = 1; i < 8; i += 2) {
            assert_int_equal(n_done(&calls[i]), 1);
            assert_int_equal(calls[i].end.status, PG_ERROR_CANCELLED);
            assert_non_null(strstr(calls[i].end.text, "the worker was closed"));
        }
    }
    pg_model_close(&own);
    assert_true(counter_clean(&memory));
}

static void closing_in_a_callback(void **state) {
    (void)state;
    for (int n = 1; n <= 2; n++) {
        const int before = count_threads();
        pg_worker_options options = worker_options();
        options.n_workers = n;
        told t = {.mutex = PTHREAD_MUTEX_INITIALIZER};
        pg_request_options request = request_options();
        request.on_event = on_event;
        request.on_event_user = &t;
        pg_worker *worker = new_worker(&options);
        t.closes = worker;
        submit(worker, "the cat", &request);
        wait_for_done(&t); /* the first piece closed the worker: CANCELLED, or its last token was there */
        assert_true(t.end.status == PG_ERROR_CANCELLED || t.end.status == PG_OK);
        if (before > 0) assert_true(wait_for_threads(before) <= before);
    }
}

static pg_status waited;
static void *wait_long(void *user) {
    pg_worker_event event = {.struct_size = sizeof event};
    do waited = pg_worker_wait(user, (double)INFINITY, &event);
    while (waited == PG_ERROR_STATE && strstr(pg_last_error(), "in use")); /* by the poll of the other thread */
    return NULL;
}

static void closing_during_a_wait(void **state) {
    (void)state;
    pg_worker_options options = worker_options();
    pg_worker *worker = new_worker(&options);
    pg_worker_event event = {.struct_size = sizeof event};
    pthread_t thread;
    pthread_create(&thread, NULL, wait_long, worker);
    while (pg_worker_poll(worker, &event) == PG_EVENT_NONE) sched_yield(); /* until the other one has it */
    ERROR(pg_worker_poll(worker, &event), PG_ERROR_STATE);
    pg_worker_close(&worker);
    pthread_join(thread, NULL);
    assert_int_equal(waited, PG_ERROR_STATE);
}

static void waiting_has_an_end(void **state) {
    (void)state;
    pg_worker_options options = worker_options();
    pg_worker *worker = new_worker(&options);
    pg_worker_event event = {.struct_size = sizeof event};
    const double begin = now_seconds();
    assert_int_equal(pg_worker_wait(worker, 0.05, &event), PG_EVENT_NONE);
    const double took = now_seconds() - begin;
    assert_true(took >= 0.05 && took < 30);
    assert_int_equal(pg_worker_wait(worker, 0, &event), PG_EVENT_NONE);
    pg_worker_close(&worker);
}

static void bad_options(void **state) {
    (void)state;
    static const int32_t cpu = 0, no_cpu = 5000, absent = 1000;
    pg_worker *worker = NULL;
    pg_worker_options options;
    const struct {
        size_t at;
        int32_t value;
        const char *words;
    } bad[] = {
        {offsetof(pg_worker_options, flags), 2, "flags is 0x2"},
        {offsetof(pg_worker_options, n_threads), -1, "n_threads is -1"},
        {offsetof(pg_worker_options, n_threads), 1025, "n_threads is 1025"},
        {offsetof(pg_worker_options, n_workers), 65, "n_workers is 65, expected 0 (default, 1) to 64"},
        {offsetof(pg_worker_options, max_waiting), -1, "max_waiting is -1"},
        {offsetof(pg_worker_options, max_waiting), 65537, "max_waiting is 65537"},
        {offsetof(pg_worker_options, max_running), 65, "max_running is 65"},
        {offsetof(pg_worker_options, max_new_tokens), -1, "max_new_tokens is -1"},
        {offsetof(pg_worker_options, nice), 20, "nice is 20"},
        {offsetof(pg_worker_options, nice), -1, "nice is -1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        options = worker_options();
        memcpy((char *)&options + bad[i].at, &bad[i].value, sizeof bad[i].value);
        ERROR(pg_worker_create(model, processor, &options, &worker), PG_ERROR_ARGUMENT);
        if (!strstr(pg_last_error(), bad[i].words)) fail_msg("%s: %s", bad[i].words, pg_last_error());
        assert_null(worker);
    }
    options = worker_options();
    options.n_cpus = 1;
    ERROR(pg_worker_create(model, processor, &options, &worker), PG_ERROR_ARGUMENT);
    options.cpus = &no_cpu;
    ERROR(pg_worker_create(model, processor, &options, &worker), PG_ERROR_ARGUMENT);
    options.cpus = &absent;
    ERROR(pg_worker_create(model, processor, &options, &worker), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "none of the CPUs that this process may use"));
    options.cpus = &cpu;
    options.flags = PG_WORKER_LEAVE_CPU_FREE;
    ERROR(pg_worker_create(model, processor, &options, &worker), PG_ERROR_ARGUMENT);
    ERROR(pg_worker_create(NULL, processor, NULL, &worker), PG_ERROR_ARGUMENT);
    ERROR(pg_worker_create(model, NULL, NULL, &worker), PG_ERROR_ARGUMENT);
    ERROR(pg_worker_create(model, processor, NULL, NULL), PG_ERROR_ARGUMENT);
    pg_worker_close(NULL);
    pg_worker_close(&worker);
}

static void bad_requests(void **state) {
    (void)state;
    const pg_worker_options options = worker_options();
    pg_worker *worker = new_worker(&options);
    pg_worker_event event = {.struct_size = sizeof event};
    ERROR(pg_worker_submit(NULL, &image, "", NULL, NULL), PG_ERROR_ARGUMENT);
    ERROR(pg_worker_submit(worker, NULL, "", NULL, NULL), PG_ERROR_ARGUMENT);
    ERROR(pg_worker_poll(NULL, &event), PG_ERROR_ARGUMENT);
    ERROR(pg_worker_poll(worker, NULL), PG_ERROR_ARGUMENT);
    ERROR(pg_worker_wait(worker, -1, &event), PG_ERROR_ARGUMENT);
    ERROR(pg_worker_wait(worker, (double)NAN, &event), PG_ERROR_ARGUMENT);
    ERROR(pg_worker_get_info(worker, NULL), PG_ERROR_ARGUMENT);
    ERROR(pg_worker_cancel(NULL, 1), PG_ERROR_ARGUMENT);
    pg_worker_close(&worker);
}

static void bad_settings(void **state) {
    (void)state;
    const pg_worker_options options = worker_options();
    pg_worker *worker = new_worker(&options);
    pg_request_options request = request_options();
    pg_encode_options encode;
    pg_sampling_options sampling;
    pg_cancel *cancel = NULL;
    request.flags = 8;
    ERROR(pg_worker_submit(worker, &image, "", &request, NULL), PG_ERROR_ARGUMENT);
    request = request_options();
    request.max_new_tokens = 9;
    ERROR(pg_worker_submit(worker, &image, "", &request, NULL), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "max_new_tokens is 9, expected 0 (default, 8) to 8"));
    request = request_options();
    request.convention = 2;
    ERROR(pg_worker_submit(worker, &image, "", &request, NULL), PG_ERROR_ARGUMENT);
    assert_non_null(strstr(pg_last_error(), "convention is 2, expected 0 (PG_BOX_1024) or 1 (PG_BOX_1023)"));
    request = request_options();
    request.reserved = 1;
    ERROR(pg_worker_submit(worker, &image, "", &request, NULL), PG_ERROR_ARGUMENT);
    request = request_options();
    request.deadline = -1;
    ERROR(pg_worker_submit(worker, &image, "", &request, NULL), PG_ERROR_ARGUMENT);
    request.deadline = (double)NAN;
    ERROR(pg_worker_submit(worker, &image, "", &request, NULL), PG_ERROR_ARGUMENT);
    request = request_options();
    OK(pg_encode_options_init(&encode, sizeof encode));
    OK(pg_cancel_create(&cancel));
    encode.cancel = cancel;
    request.encode = &encode;
    ERROR(pg_worker_submit(worker, &image, "", &request, NULL), PG_ERROR_ARGUMENT);
    pg_cancel_close(&cancel);
    request = request_options();
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    const int64_t forced = 1;
    sampling.forced_eos_ids = &forced;
    sampling.n_forced_eos_ids = 1;
    request.sampling = &sampling;
    request.max_new_tokens = 2;
    ERROR(pg_worker_submit(worker, &image, "", &request, NULL), PG_ERROR_UNSUPPORTED);
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    const int64_t size = -1;
    sampling.bad_word_ids = &forced;
    sampling.bad_word_sizes = &size;
    sampling.n_bad_words = 1;
    ERROR(pg_worker_submit(worker, &image, "", &request, NULL), PG_ERROR_ARGUMENT);
    /* settings that are wrong in themselves are the request's end */
    OK(pg_sampling_options_init(&sampling, sizeof sampling));
    sampling.flags = PG_SAMPLING_RANDOM;
    sampling.top_p = 7;
    OK(pg_worker_submit(worker, &image, "the", &request, NULL));
    const ended end = next_end(worker);
    assert_int_equal(end.status, PG_ERROR_ARGUMENT);
    assert_non_null(strstr(end.text, "top_p"));
    no_more_events(worker);
    pg_worker_close(&worker);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_generate),
        cmocka_unit_test(by_priority_then_age),
        cmocka_unit_test(lower_priority_waits),
        cmocka_unit_test(the_newest_of_a_stream),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(cancelling),
        cmocka_unit_test(a_full_queue),
        cmocka_unit_test(refused_images_and_prompts),
        cmocka_unit_test(frames_are_copied),
        cmocka_unit_test(events_by_callback),
        cmocka_unit_test(closing_while_busy),
        cmocka_unit_test(closing_in_a_callback),
        cmocka_unit_test(closing_during_a_wait),
        cmocka_unit_test(waiting_has_an_end),
        cmocka_unit_test(bad_options),
        cmocka_unit_test(bad_requests),
        cmocka_unit_test(bad_settings),
    };
    return RUN_TESTS(tests, open_tiny, close_tiny);
}
