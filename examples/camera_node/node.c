/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The node on a pg_worker: one stream, in which the newest frame wins. */
#include "node.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

enum { STREAM = 1, MAX_NEW_TOKENS = 40, MAX_OBJECTS = 16, GREY = 128 };

/* What is kept of a frame until its answer is there. */
typedef struct frame_note {
    struct frame_note *next;
    int64_t ticket, number, stamp, taken;
    int32_t width, height;
    pg_window window; /* what the model sees of it */
    float scores[MAX_OBJECTS];
    int32_t n_scores;
} frame_note;

struct node {
    pg_model *model;
    pg_processor *processor;
    pg_worker *worker;
    pg_image_settings settings; /* the size that the model takes */
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
    n->settings.struct_size = sizeof n->settings;
    pg_status status = n->prompt ? PG_OK : PG_ERROR_MEMORY;
    if (status >= 0) status = pg_model_open(options->model, NULL, &n->model);
    if (status >= 0) status = pg_processor_open(options->model, NULL, &n->processor);
    if (status >= 0) status = pg_processor_get_image_settings(n->processor, &n->settings);
    if (status >= 0) status = open_worker(n, options);
    if (status < 0)
        node_close(&n);
    else
        *out = n;
    return status;
}

static void free_notes(frame_note *first) {
    while (first) {
        frame_note *next = first->next;
        free(first);
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
static pg_status letterbox(const node *n, const pg_image *frame, pg_image *image, frame_note *note) {
    *image = *frame;
    image->fit = PG_FIT_LETTERBOX;
    memset(image->background, GREY, 3);
    note->width = image->width;
    note->height = image->height;
    note->window.struct_size = sizeof note->window;
    return pg_image_get_window(image, 0, 0, n->settings.width, n->settings.height, &note->window);
}

/* The lock is held until the note is in the list, whose answer may be there before pg_worker_submit() returns. */
static pg_status submit(node *n, const pg_image *image, frame_note *note) {
    pg_request_options request;
    pg_status status = pg_request_options_init(&request, sizeof request);
    if (status < 0) return status;
    request.stream = STREAM;
    request.flags = PG_REQUEST_OBJECTS; /* for the scores, which a text has not */
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
    pg_image image;
    frame_note *note = calloc(1, sizeof *note);
    pg_status status = note ? PG_OK : PG_ERROR_MEMORY;
    if (note) {
        note->number = number;
        note->stamp = stamp;
        note->taken = taken;
        status = letterbox(n, frame, &image, note);
    }
    if (status >= 0) status = submit(n, &image, note);
    if (status >= 0) return status;
    pthread_mutex_lock(&n->lock);
    ++*(status == PG_ERROR_BUSY ? &n->counts.busy : &n->counts.failed);
    pthread_mutex_unlock(&n->lock);
    free(note);
    return status;
}

/* ---- answers out ---- */

/* The boxes of an answer, in pixels of the frame. *objects: malloc'ed; labels are the answer's. */
static pg_status read_objects(const frame_note *note, const pg_worker_event *event, pg_answer **answer,
                              node_object **objects, int32_t *n_objects) {
    pg_answer_options options;
    pg_answer_options_init(&options, sizeof options);
    options.width = note->width;
    options.height = note->height;
    options.window = &note->window;
    options.convention = PG_BOX_1023; /* as the model was trained */
    const pg_status status = pg_answer_create_from_text(event->text, event->size, &options, answer);
    if (status < 0) return status;
    const int64_t n = pg_answer_get_n_objects(*answer);
    *objects = malloc(sizeof **objects * ((size_t)n + 1));
    if (!*objects) return PG_ERROR_MEMORY;
    for (int64_t i = 0; i < n; i++) {
        pg_object o = {.struct_size = sizeof o};
        pg_answer_get_object(*answer, i, &o);
        if (o.flags & PG_OBJECT_BROKEN) continue;
        node_object *object = &(*objects)[(*n_objects)++];
        object->label = o.label;
        object->score = i < note->n_scores ? (double)note->scores[i] : NAN;
        object->x_min = (double)o.box[0];
        object->y_min = (double)o.box[1];
        object->x_max = (double)o.box[2];
        object->y_max = (double)o.box[3];
    }
    return status;
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
    pg_answer *answer = NULL;
    node_object *objects = NULL;
    node_report report = {.number = note->number, .stamp = note->stamp, .status = event->status, .text = event->text};
    if (event->status >= 0) {
        report.status = read_objects(note, event, &answer, &objects, &report.n_objects);
        if (report.status < 0) report.text = pg_last_error();
    }
    end_frame(n, note, report.status);
    report.objects = objects;
    report.wait = event->wait_seconds;
    report.run = event->run_seconds;
    report.latency = (double)(monotonic_ns() - note->taken) * 1e-9;
    (report.status >= 0 ? n->publisher.answer : n->publisher.dropped)(n->publisher.user, &report);
    free(objects);
    pg_answer_close(&answer);
    free(note);
}

pg_status node_spin(node *n, double seconds) {
    pg_worker_event event;
    pg_status status = pg_worker_event_init(&event, sizeof event);
    if (status >= 0) status = pg_worker_wait(n->worker, seconds, &event);
    if (status != PG_OK) return status;
    frame_note *note = (frame_note *)(uintptr_t)event.user;
    if (event.kind == PG_WORKER_EVENT_OBJECT && note->n_scores < MAX_OBJECTS)
        note->scores[note->n_scores++] = event.object->score;
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
