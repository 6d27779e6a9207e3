/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the tests of pg_worker share: a tiny model, requests that a gate holds while they run, and the end of a ticket.
 * run_tests.h comes before it. */
#ifndef TESTS_WORKER_FIXTURE_H
#define TESTS_WORKER_FIXTURE_H

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "call_status.h"
#include "support.h"
#include "tiny.h"

static char folder[512];
static pg_model *model;
static pg_processor *processor;
static bytes file;
static pg_image image;

static inline int open_tiny(void **state) {
    tiny_options options = tiny_saved_today();
    (void)state;
    make_temp_folder(folder, sizeof folder);
    tiny_write(folder, &options);
    file = tiny_image(IMAGE_PNG, 24, 18, 1);
    OK(pg_model_open(folder, NULL, &model));
    OK(pg_processor_open(folder, NULL, &processor));
    OK(pg_image_from_bytes(&image, sizeof image, file.data, file.size));
    return 0;
}

static inline int close_tiny(void **state) {
    (void)state;
    pg_processor_close(&processor);
    pg_model_close(&model);
    remove_folder(folder);
    bytes_free(&file);
    return 0;
}

static inline pg_worker_options worker_options(void) {
    pg_worker_options options;
    OK(pg_worker_options_init(&options, sizeof options));
    options.n_threads = 1;
    options.max_new_tokens = 8;
    return options;
}

static inline pg_worker *new_worker(const pg_worker_options *options) {
    pg_worker *worker = NULL;
    OK(pg_worker_create(model, processor, options, &worker));
    return worker;
}

static inline pg_request_options request_options(void) {
    pg_request_options options;
    OK(pg_request_options_init(&options, sizeof options));
    return options;
}

static inline int64_t submit(pg_worker *worker, const char *prompt, const pg_request_options *options) {
    int64_t ticket = 0;
    OK(pg_worker_submit(worker, &image, prompt, options, &ticket));
    return ticket;
}

/* A gate that holds a request on its thread when its first token is chosen. */
typedef struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int n_held, open;
    pg_sampling_options sampling;
} gate;

static inline int32_t hold(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits,
                           int64_t vocab_size) {
    gate *g = user;
    (void)row, (void)ids, (void)n_ids, (void)logits, (void)vocab_size;
    pthread_mutex_lock(&g->mutex);
    g->n_held++;
    pthread_cond_broadcast(&g->changed);
    while (!g->open) pthread_cond_wait(&g->changed, &g->mutex);
    pthread_mutex_unlock(&g->mutex);
    return 0;
}

static inline void gate_init(gate *g) {
    pthread_mutex_init(&g->mutex, NULL);
    pthread_cond_init(&g->changed, NULL);
    g->n_held = g->open = 0;
    OK(pg_sampling_options_init(&g->sampling, sizeof g->sampling));
    g->sampling.flags = PG_SAMPLING_IGNORE_EOS;
    g->sampling.on_logits = hold;
    g->sampling.on_logits_user = g;
}

static inline void gate_open(gate *g) {
    pthread_mutex_lock(&g->mutex);
    g->open = 1;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->mutex);
}

/* A worker that runs one request at a time, and a gate for it. */
static inline pg_worker *new_gated_worker(gate *g) {
    pg_worker_options options = worker_options();
    options.max_running = 1;
    gate_init(g);
    return new_worker(&options);
}

/* Submits a request and waits until the gate holds it. */
static inline int64_t submit_held(pg_worker *worker, gate *g, pg_request_options options) {
    options.sampling = &g->sampling;
    const int64_t ticket = submit(worker, "the cat", &options);
    pthread_mutex_lock(&g->mutex);
    while (g->n_held == 0) pthread_cond_wait(&g->changed, &g->mutex);
    pthread_mutex_unlock(&g->mutex);
    return ticket;
}

/* How a ticket ended, and the pieces of its text. */
typedef struct ended {
    int64_t ticket;
    uint64_t user;
    pg_status status;
    int32_t stop;
    int64_t n_tokens;
    int n_objects;
    char text[2048], pieces[2048];
} ended;

static inline void take(const pg_worker_event *event, ended *of) {
    if (event->kind == PG_WORKER_EVENT_TEXT) {
        assert_true(event->size == strlen(event->text) && event->size > 0);
        snprintf(of->pieces + strlen(of->pieces), sizeof of->pieces - strlen(of->pieces), "%s", event->text);
    } else if (event->kind == PG_WORKER_EVENT_OBJECT) {
        assert_non_null(event->object);
        of->n_objects++;
    } else {
        assert_int_equal(event->kind, PG_WORKER_EVENT_DONE);
        assert_true(event->wait_seconds >= 0 && event->run_seconds >= 0 && event->size == strlen(event->text));
        of->ticket = event->ticket;
        of->user = event->user;
        of->status = event->status;
        of->stop = event->stop;
        of->n_tokens = event->n_new_tokens;
        snprintf(of->text, sizeof of->text, "%s", event->text);
    }
}

/* The next DONE event; those before it must be of the same ticket unless others run beside it: pieces [n tickets]. */
static inline ended next_end(pg_worker *worker) {
    ended found = {.ticket = 0};
    pg_worker_event event;
    OK(pg_worker_event_init(&event, sizeof event));
    while (found.ticket == 0) {
        OK(pg_worker_wait(worker, 60, &event));
        take(&event, &found);
    }
    return found;
}

static inline void no_more_events(pg_worker *worker) {
    pg_worker_event event = {.struct_size = sizeof event};
    assert_int_equal(pg_worker_poll(worker, &event), PG_EVENT_NONE);
    pg_worker_info info = {.struct_size = sizeof info};
    OK(pg_worker_get_info(worker, &info));
    assert_int_equal(info.n_waiting + info.n_running + info.n_not_polled, 0);
    assert_true(info.n_accepted == info.n_done + info.n_cancelled + info.n_replaced + info.n_late + info.n_failed);
}

#endif
