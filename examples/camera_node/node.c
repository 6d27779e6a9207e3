/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The node on a pg_worker: one stream, in which the newest frame wins. */
#include "node.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

enum { STREAM = 1, MAX_NEW_TOKENS = 40, GREY = 128 };

/* What is kept of a frame until its answer is there. */
typedef struct frame_note {
    struct frame_note *next;
    int64_t ticket, number, stamp, taken;
    node_object *objects; /* so far; their labels are allocated, too */
    int32_t n_objects;
} frame_note;

struct node {
    pg_model *model;
    pg_processor *processor;
    pg_worker *worker;
    char *prompt;
    double deadline;
    node_publisher publisher;
    pthread_mutex_t lock; /* for what is below */
    frame_note *notes;    /* frames under way */
    node_counts counts;
};

/* ---- opening and closing ---- */

static pg_status open_worker(node *n, const node_options *options) {
    pg_worker_options worker;
    const pg_status status = pg_worker_options_init(&worker, sizeof worker);
    if (status < 0) return status;
    worker.max_running = 1; /* two frames at a time would make both late */
    worker.max_new_tokens = MAX_NEW_TOKENS;
    worker.nice = options->nice;
    if (options->leave_cpu) worker.flags |= PG_WORKER_LEAVE_CPU_FREE;
    return pg_worker_create(n->model, n->processor, &worker, &n->worker);
}

pg_status node_open(const node_options *options, node **out) {
    node *n = calloc(1, sizeof *n);
    *out = NULL;
    if (!n) return PG_ERROR_MEMORY;
    pthread_mutex_init(&n->lock, NULL);
    n->deadline = options->deadline;
    n->publisher = options->publisher;
    n->prompt = strdup(options->prompt);
    pg_status status = n->prompt ? PG_OK : PG_ERROR_MEMORY;
    if (status >= 0) status = pg_model_open(options->model, NULL, &n->model);
    if (status >= 0) status = pg_processor_open(options->model, NULL, &n->processor);
    if (status >= 0) status = open_worker(n, options);
    if (status < 0)
        node_close(&n);
    else
        *out = n;
    return status;
}

static void free_note(frame_note *note) {
    for (int32_t i = 0; i < note->n_objects; i++) free((char *)note->objects[i].label);
    free(note->objects);
    free(note);
}

static void free_notes(frame_note *first) {
    while (first) {
        frame_note *next = first->next;
        free_note(first);
        first = next;
    }
}

void node_close(node **handle) {
    node *n = *handle;
    *handle = NULL;
    if (!n) return;
    pg_worker_close(&n->worker);
    pg_processor_close(&n->processor);
    pg_model_close(&n->model);
    free_notes(n->notes);
    pthread_mutex_destroy(&n->lock);
    free(n->prompt);
    free(n);
}

/* ---- frames in ---- */

/* The whole frame, undistorted, in the middle of the model's square. */
static pg_image letterbox(const pg_image *frame) {
    pg_image image = *frame;
    image.fit = PG_FIT_LETTERBOX;
    memset(image.background, GREY, 3);
    return image;
}

/* The lock is held until the note is in the list, whose answer may be there before pg_worker_submit() returns. */
static pg_status submit(node *n, const pg_image *image, frame_note *note) {
    pg_request_options request;
    pg_status status = pg_request_options_init(&request, sizeof request);
    if (status < 0) return status;
    request.stream = STREAM;
    request.flags = PG_REQUEST_OBJECTS;
    request.convention = PG_BOX_1023; /* as the model was trained */
    request.deadline = n->deadline;
    request.max_new_tokens = MAX_NEW_TOKENS;
    request.user = (uint64_t)(uintptr_t)note;
    pthread_mutex_lock(&n->lock);
    status = pg_worker_submit(n->worker, image, n->prompt, &request, &note->ticket);
    if (status >= 0) {
        note->next = n->notes;
        n->notes = note;
        n->counts.under_way++;
    }
    pthread_mutex_unlock(&n->lock);
    return status;
}

pg_status node_put_frame(node *n, const pg_image *frame, int64_t number, int64_t stamp, int64_t taken) {
    const pg_image image = letterbox(frame);
    frame_note *note = calloc(1, sizeof *note);
    pg_status status = PG_ERROR_MEMORY;
    if (note) {
        note->number = number;
        note->stamp = stamp;
        note->taken = taken;
        status = submit(n, &image, note);
    }
    if (status >= 0) return status;
    pthread_mutex_lock(&n->lock);
    ++*(status == PG_ERROR_BUSY ? &n->counts.busy : &n->counts.failed);
    pthread_mutex_unlock(&n->lock);
    free(note);
    return status;
}

/* ---- answers out ---- */

/* Keeps the object of an event, which is valid until the next. Where memory is short, the report goes without it. */
static void keep_object(frame_note *note, const pg_worker_event *event) {
    const pg_object *o = event->object;
    if (o->flags & PG_OBJECT_BROKEN) return;
    node_object *objects = realloc(note->objects, sizeof *objects * ((size_t)note->n_objects + 1));
    if (!objects) return;
    note->objects = objects;
    node_object *object = &objects[note->n_objects];
    char *label = malloc((size_t)o->label_size + 1);
    if (!label) return;
    memcpy(label, o->label, (size_t)o->label_size + 1); /* its closing NUL too */
    object->label = label;
    object->score = (double)o->score;
    object->x_min = (double)o->box[0];
    object->y_min = (double)o->box[1];
    object->x_max = (double)o->box[2];
    object->y_max = (double)o->box[3];
    note->n_objects++;
}

/* Takes the note out of the list, and counts how its frame ended. */
static void end_frame(node *n, frame_note *ended, pg_status status) {
    node_counts *c = &n->counts;
    pthread_mutex_lock(&n->lock);
    for (frame_note **at = &n->notes; *at; at = &(*at)->next)
        if (*at == ended) {
            *at = ended->next;
            break;
        }
    c->under_way--;
    int64_t *count = status >= 0                    ? &c->answered
                     : status == PG_ERROR_REPLACED  ? &c->replaced
                     : status == PG_ERROR_DEADLINE  ? &c->late
                     : status == PG_ERROR_CANCELLED ? &c->cancelled
                                                    : &c->failed;
    ++*count;
    pthread_mutex_unlock(&n->lock);
}

static void publish(node *n, frame_note *note, const pg_worker_event *event) {
    const node_report report = {.number = note->number,
                                .stamp = note->stamp,
                                .latency = (double)(monotonic_ns() - note->taken) * 1e-9,
                                .wait = event->wait_seconds,
                                .run = event->run_seconds,
                                .status = event->status,
                                .text = event->text,
                                .objects = note->objects,
                                .n_objects = event->status >= 0 ? note->n_objects : 0};
    end_frame(n, note, event->status);
    (event->status >= 0 ? n->publisher.answer : n->publisher.dropped)(n->publisher.user, &report);
    free_note(note);
}

pg_status node_spin(node *n, double seconds) {
    pg_worker_event event;
    pg_status status = pg_worker_event_init(&event, sizeof event);
    if (status >= 0) status = pg_worker_wait(n->worker, seconds, &event);
    if (status != PG_OK) return status;
    frame_note *note = (frame_note *)(uintptr_t)event.user;
    if (event.kind == PG_WORKER_EVENT_OBJECT)
        keep_object(note, &event);
    else if (event.kind == PG_WORKER_EVENT_DONE)
        publish(n, note, &event);
    return status;
}

void node_cancel(node *n) {
    pthread_mutex_lock(&n->lock);
    for (const frame_note *note = n->notes; note; note = note->next) pg_worker_cancel(n->worker, note->ticket);
    pthread_mutex_unlock(&n->lock);
}

node_counts node_get_counts(node *n) {
    pthread_mutex_lock(&n->lock);
    const node_counts counts = n->counts;
    pthread_mutex_unlock(&n->lock);
    return counts;
}
