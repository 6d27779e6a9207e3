/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* One stream of questions to a worker with one row at a time: one is answered while the newest one waits. */
#include "mind.h"

#include <stdio.h>
#include <string.h>

enum { STREAM = 1, MAX_TOKENS = 40 };

pg_status mind_open(mind *m, const char *folder, const mind_options *options) {
    pg_worker_options worker;
    memset(m, 0, sizeof *m);
    pg_status status = pg_worker_options_init(&worker, sizeof worker);
    if (status < 0) return status;
    worker.n_threads = options->n_threads;
    worker.nice = options->nice;
    worker.flags = options->leave_cpu_free ? PG_WORKER_LEAVE_CPU_FREE : 0;
    worker.max_running = 1; /* the answer that runs has the CPUs for itself */
    worker.max_new_tokens = MAX_TOKENS;
    status = pg_model_open(folder, NULL, &m->model);
    if (status >= 0) status = pg_processor_open(folder, NULL, &m->processor);
    if (status >= 0) status = pg_worker_create(m->model, m->processor, &worker, &m->worker);
    return status;
}

void mind_close(mind *m) {
    pg_worker_close(&m->worker);
    pg_processor_close(&m->processor);
    pg_model_close(&m->model);
}

pg_status mind_ask(mind *m, const canvas *view, const question *q) {
    pg_image image;
    pg_request_options request;
    int64_t ticket = 0;
    int slot = 0;
    while (slot < MAX_ASKED && m->asked[slot].is_used) slot++;
    if (slot == MAX_ASKED) return PG_OK; /* nobody has listened for long */
    pg_status status = pg_image_from_pixels(&image, sizeof image, PG_IMAGE_BGRA8, view->width, view->height,
                                            view->pixels, 4 * (int64_t)view->width);
    if (status >= 0) status = pg_request_options_init(&request, sizeof request);
    if (status < 0) return status;
    request.flags = PG_REQUEST_OBJECTS;
    request.convention = PG_BOX_1023; /* as the demo model was trained */
    request.max_new_tokens = MAX_TOKENS;
    request.stream = STREAM;
    request.user = (uint64_t)slot;
    status = pg_worker_submit(m->worker, &image, q->prompt, &request, &ticket);
    if (status == PG_ERROR_BUSY) return PG_OK; /* another frame has better luck */
    if (status < 0) return status;
    m->asked[slot].is_used = 1;
    m->asked[slot].side = (float)view->width;
    m->asked[slot].answer = (answer){.question = *q};
    m->n_asked++;
    return PG_OK;
}

static void add_text(answer *a, const char *text, size_t size) {
    const size_t used = strlen(a->text), room = sizeof a->text - 1 - used;
    if (size > room) size = room;
    memcpy(a->text + used, text, size);
    a->text[used + size] = 0;
}

/* Boxes come in pixels of the picture that was asked about, which was `side` pixels wide and high. */
static void add_box(answer *a, const pg_object *object, float side) {
    if (a->n_boxes == MAX_FOUND || object->flags & PG_OBJECT_BROKEN || object->n_locs != 4) return;
    found *f = &a->boxes[a->n_boxes++];
    snprintf(f->label, sizeof f->label, "%.31s", object->label);
    for (int i = 0; i < 4; i++) f->box[i] = object->box[i] / side;
}

pg_status mind_listen(mind *m, void (*on_answer)(void *user, const answer *a), void *user) {
    for (;;) {
        pg_worker_event event;
        pg_status status = pg_worker_event_init(&event, sizeof event);
        if (status >= 0) status = pg_worker_poll(m->worker, &event);
        if (status != PG_OK) return status == PG_EVENT_NONE ? PG_OK : status;
        answer *a = &m->asked[event.user].answer;
        if (event.kind == PG_WORKER_EVENT_TEXT) add_text(a, event.text, (size_t)event.size);
        if (event.kind == PG_WORKER_EVENT_OBJECT) add_box(a, event.object, m->asked[event.user].side);
        if (event.kind == PG_WORKER_EVENT_DONE) {
            m->asked[event.user].is_used = 0;
            if (event.status == PG_ERROR_REPLACED) {
                m->n_replaced++;
                continue;
            }
            a->is_done = 1;
            a->status = event.status;
            a->wait_seconds = event.wait_seconds;
            a->run_seconds = event.run_seconds;
            a->n_tokens = event.n_new_tokens;
            a->text[0] = 0;
            add_text(a, event.text, (size_t)event.size); /* the whole, or what went wrong */
            m->n_answered++;
            on_answer(user, a);
        }
        /* The first answer to a question is seen while it is made; later ones take its place when they are whole. */
        if (a->is_done || !m->shown.is_done || strcmp(a->question.prompt, m->shown.question.prompt) != 0) m->shown = *a;
    }
}

int answer_is_right(const answer *a) {
    const question *q = &a->question;
    if (a->status < 0) return 0;
    if (q->kind != ASK_BOX) return strcmp(a->text, q->expected) == 0;
    return a->n_boxes == 1 && strcmp(a->boxes[0].label, q->expected) == 0 &&
           box_overlap(a->boxes[0].box, q->box) >= .75f;
}
