/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences of calls of a worker, legal and illegal ones. The first bytes are its options; then a byte is a call, and
 * those behind it are what it is given. Whatever it is, each request that was accepted ends once, behind its other
 * events.
 */
#include "fuzz.h"

enum { MAX_CALLS = 48, MOST_TICKETS = MAX_CALLS + 1 };

static int ends[MOST_TICKETS], accepted[MOST_TICKETS];

static pg_worker *make(fuzz_input *in) {
    pg_worker *worker = NULL;
    pg_worker_options options;
    const int32_t cpus[] = {(int32_t)fuzz_take(in, 1) - 1};
    pg_worker_options_init(&options, sizeof options);
    options.flags = (uint32_t)fuzz_take(in, 1) % 4;
    options.n_threads = 1 + (int32_t)fuzz_take(in, 1) % 3;
    options.n_workers = (int32_t)fuzz_take(in, 1) % 4 - 1;
    options.max_waiting = (int32_t)fuzz_take(in, 1) % 6 - 1;
    options.max_running = (int32_t)fuzz_take(in, 1) % 4 - 1;
    options.max_new_tokens = (int32_t)fuzz_take(in, 1) % 8 - 1;
    if (fuzz_take(in, 1) & 1) {
        options.cpus = cpus;
        options.n_cpus = 1;
    }
    if (options.max_new_tokens == 0) options.max_new_tokens = 3;
    MADE(pg_worker_create(fuzz_model(FUZZ_OFFICIAL), fuzz_processor(FUZZ_OFFICIAL), &options, &worker), worker);
    return worker;
}

static void look(const pg_worker_event *event) {
    if (event->ticket < 1 || event->ticket >= MOST_TICKETS || ends[event->ticket]) abort();
    if (event->size != strlen(event->text)) abort();
    if (event->kind == PG_WORKER_EVENT_OBJECT && (!event->object || !event->object->label)) abort();
    if (event->kind != PG_WORKER_EVENT_DONE) return;
    if (event->status < 0 && event->size == 0) abort();
    ends[event->ticket] = 1;
}

static void submit(pg_worker *worker, fuzz_input *in) {
    static const uint8_t grey[8 * 8];
    pg_image image;
    pg_request_options options;
    pg_sampling_options sampling;
    pg_encode_options encode;
    const int what = (int)fuzz_take(in, 1), size = (int)fuzz_take(in, 1);
    int64_t ticket = 0;
    pg_image_from_pixels(&image, sizeof image, PG_IMAGE_GRAY8, 8, 8, grey, 0);
    image.format = what & 1 ? image.format : size;
    pg_request_options_init(&options, sizeof options);
    pg_sampling_options_init(&sampling, sizeof sampling);
    pg_encode_options_init(&encode, sizeof encode);
    options.flags = (uint32_t)fuzz_take(in, 1) % 16 & ~(uint32_t)PG_REQUEST_BORROW;
    options.priority = (int32_t)fuzz_take(in, 1) - 128;
    options.max_new_tokens = (int32_t)fuzz_take(in, 1) % 10 - 1;
    options.stream = (int64_t)fuzz_take(in, 1) % 4;
    options.deadline = what & 2 ? ((double)fuzz_take(in, 1) - 4) * 1e-4 : 0;
    const int64_t words[] = {(int64_t)fuzz_take(in, 1), 3}, sizes[] = {(int64_t)fuzz_take(in, 1) % 4 - 1};
    sampling.bad_word_ids = words;
    sampling.bad_word_sizes = sizes;
    sampling.n_bad_words = sizes[0] > 2 ? 0 : 1;
    encode.max_tokens = size;
    options.convention = what >> 6 == 2 ? 2 : what >> 6 & 1; /* 2: there is none */
    if (what & 4) options.sampling = &sampling;
    if (what & 8) options.encode = &encode;
    const char prompt[] = {(char)size, (char)what, 0};
    if (!OK(pg_worker_submit(worker, what & 16 ? NULL : &image, what & 32 ? prompt : "the", &options, &ticket))) return;
    if (ticket < 1 || ticket >= MOST_TICKETS || accepted[ticket]) abort();
    accepted[ticket] = 1;
}

static int poll(pg_worker *worker, double seconds) {
    pg_worker_event event;
    pg_worker_event_init(&event, sizeof event);
    const pg_status status = seconds > 0 ? pg_worker_wait(worker, seconds, &event) : pg_worker_poll(worker, &event);
    if (OK(status) && status == PG_OK) look(&event);
    return status == PG_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    memset(ends, 0, sizeof ends);
    memset(accepted, 0, sizeof accepted);
    pg_worker *worker = make(&in);
    pg_worker_info info = {.struct_size = sizeof info};
    int closes = 0;
    for (int n = 0; in.size && n < MAX_CALLS && !closes; n++) {
        const int call = (int)fuzz_take(&in, 1);
        if (call < 128)
            submit(worker, &in);
        else if (call < 160)
            OK(pg_worker_cancel(worker, (int64_t)fuzz_take(&in, 1) - 1));
        else if (call < 208)
            poll(worker, 0);
        else if (call < 240)
            poll(worker, (double)fuzz_take(&in, 1) * 1e-5);
        else if (call < 252)
            OK(pg_worker_get_info(worker, &info));
        else
            closes = 1;
    }
    for (int64_t t = 1; worker && !closes && t < MOST_TICKETS; t++)
        while (accepted[t] && !ends[t])
            if (!poll(worker, 60)) abort();
    pg_worker_close(&worker);
    return fuzz_end();
}
