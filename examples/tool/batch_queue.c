/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Readers, and the places where jobs wait for the model. */
#include "batch_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "json_lines.h"
#include "objects.h"
#include "system.h"

enum { MOMENT = 200 /* ms that a job waits for one more to run with it */ };

/* ---- a reader ---- */

static pg_status read_image(const tool_queue *q, tool_shared_image *image) {
    pg_image source;
    pg_encode_options options;
    pg_encode_options_init(&options, sizeof options);
    options.flags = q->image_flags;
    options.cancel = q->cancel;
    pg_status status = pg_image_from_path(&source, sizeof source, image->path);
    if (status >= 0) status = pg_processor_encode(q->processor, &source, NULL, &options, &image->pixels);
    return status < 0 ? status : tool_image_size(image->pixels, &image->width, &image->height);
}

/* A prompt may have `<image>` itself, for the place of the image: once. Rows of more would take those of other jobs. */
static char *check_images(const tool_queue *q, const tool_work *work) {
    pg_tensor ids = {.struct_size = sizeof ids};
    int64_t n = 0;
    if (pg_inputs_get_tensor(work->prompt, "input_ids", &ids) < 0) return tool_job_error();
    for (int64_t i = 0; i < ids.shape[1]; i++) n += ((const int64_t *)ids.data)[i] == q->image_id;
    if (n == q->n_image_tokens) return NULL;
    return tool_line_reason("the prompt has %lld `<image>`, expected at most 1 (--literal takes `<image>` as text)",
                            (long long)(q->n_image_tokens > 0 ? n / q->n_image_tokens : n));
}

static pg_status read_prompt(const tool_queue *q, tool_work *work) {
    pg_encode_options options;
    pg_row_info info = {.struct_size = sizeof info};
    pg_encode_options_init(&options, sizeof options);
    options.flags = q->prompt_flags;
    options.cancel = q->cancel;
    pg_status status = pg_processor_encode(q->processor, NULL, work->job.prompt, &options, &work->prompt);
    if (status >= 0) status = pg_inputs_get_row_info(work->prompt, 0, &info);
    work->n_tokens = info.n_tokens;
    return status;
}

/* The job's image, which another job may have already; *is_new: this reader is to read it. NULL: no memory. */
static tool_shared_image *share_image(tool_queue *q, const char *path, int *is_new) {
    tool_shared_image *image = q->images;
    *is_new = 0;
    while (image && strcmp(image->path, path) != 0) image = image->next;
    if (!image) {
        image = calloc(1, sizeof *image);
        if (image && !(image->path = strdup(path))) {
            free(image);
            image = NULL;
        }
        if (!image) return NULL;
        image->next = q->images;
        q->images = image;
        *is_new = 1;
    }
    image->n_jobs++;
    return image;
}

static void waits(tool_queue *q, tool_work *work) {
    pthread_mutex_lock(&q->mutex);
    work->state = TOOL_WORK_WAITS;
    q->n_arrived++;
    pthread_cond_signal(&q->ready);
    pthread_mutex_unlock(&q->mutex);
}

/* Prompt first: where it is bad, the image need not be read. What Ctrl-C stops stays as it is: it has no error. */
static void prepare(tool_queue *q, tool_work *work) {
    int is_new = 0;
    pg_status status = work->job.error ? PG_OK : read_prompt(q, work);
    if (status == PG_ERROR_CANCELLED) return;
    if (status < 0) work->job.error = tool_job_error();
    if (!work->job.error) work->job.error = check_images(q, work);
    if (!work->job.error) {
        pthread_mutex_lock(&q->mutex);
        work->image = share_image(q, work->job.path, &is_new);
        pthread_mutex_unlock(&q->mutex);
        if (!work->image) work->job.error = strdup("no memory");
    }
    if (is_new) {
        status = read_image(q, work->image);
        if (status == PG_ERROR_CANCELLED) return;
        char *error = status < 0 ? tool_job_error() : NULL;
        pthread_mutex_lock(&q->mutex);
        work->image->error = error;
        work->image->is_read = 1;
        pthread_mutex_unlock(&q->mutex);
    }
    waits(q, work);
}

/* A place for the next job. NULL: the readers are to end. */
static tool_work *wait_for_place(tool_queue *q) {
    pthread_mutex_lock(&q->mutex);
    while (q->next - q->first == q->n_places && !atomic_load(&q->end)) pthread_cond_wait(&q->room, &q->mutex);
    tool_work *work = atomic_load(&q->end) ? NULL : &q->places[q->next % q->n_places];
    pthread_mutex_unlock(&q->mutex);
    return work;
}

/* The next job that has no result yet, in a place of its own. NULL: there is none. */
static tool_work *take_job(tool_queue *q) {
    tool_job job;
    int there, have = 0;
    tool_work *work = wait_for_place(q);
    if (!work) return NULL;
    while ((there = tool_jobs_next(q->jobs, &job)) > 0) {
        have = tool_results_have(q->results, &job);
        if (have == 0) break;
        if (have < 0) q->changed_line = job.line;
        tool_job_free(&job);
        if (have < 0) break;
    }
    pthread_mutex_lock(&q->mutex);
    if (there < 0) q->error = errno;
    if (there > 0 && have < 0) q->changed = 1;
    if (there > 0 && have == 0) {
        *work = (tool_work){.state = TOOL_WORK_READ, .job = job};
        q->next++;
    } else {
        work = NULL;
        atomic_store(&q->end, 1); /* the other readers need not look */
    }
    pthread_mutex_unlock(&q->mutex);
    return work;
}

static void *reader(void *user) {
    tool_queue *q = user;
    tool_work *work;
    do {
        pthread_mutex_lock(&q->input);
        work = take_job(q);
        pthread_mutex_unlock(&q->input);
        if (work) prepare(q, work);
    } while (work);
    pthread_mutex_lock(&q->mutex);
    q->n_ended++;
    pthread_cond_signal(&q->ready);
    pthread_mutex_unlock(&q->mutex);
    return NULL;
}

/* ---- open, close ---- */

/* Signals are for the thread that runs the model. */
static void start_readers(tool_queue *q) {
    while (q->n_started < q->n_readers && tool_thread_start(&q->readers[q->n_started], reader, q) == 0) q->n_started++;
}

int tool_queue_open(tool_queue *q) {
    pg_image_settings settings = {.struct_size = sizeof settings};
    pg_status status = pg_processor_get_image_settings(q->processor, &settings);
    if (status >= 0) status = pg_processor_get_token_id(q->processor, "<image>", &q->image_id);
    if (status < 0) return tool_fail(status, TOOL_STAGE_PROCESSOR);
    q->n_image_tokens = settings.n_image_tokens;
    pthread_mutex_init(&q->input, NULL);
    pthread_mutex_init(&q->mutex, NULL);
    tool_condition_init(&q->ready);
    tool_condition_init(&q->room);
    q->places = calloc(q->n_places, sizeof *q->places);
    q->readers = calloc(q->n_readers, sizeof *q->readers);
    if (!q->places || !q->readers) return tool_fail_text("no memory for %zu jobs", q->n_places);
    q->jobs->end = &q->end;
    start_readers(q);
    return q->n_started > 0 ? TOOL_OK : tool_fail_text("no thread could be started to read images");
}

static void free_image(tool_shared_image *image) {
    pg_inputs_close(&image->pixels);
    pg_features_close(&image->features);
    free(image->error);
    free(image->path);
    free(image);
}

/* One that no other job has is freed. */
static void leave_image(tool_queue *q, tool_shared_image *image) {
    pthread_mutex_lock(&q->mutex);
    tool_shared_image **link = &q->images;
    const int is_last = --image->n_jobs == 0;
    while (is_last && *link != image) link = &(*link)->next;
    if (is_last) *link = image->next;
    pthread_mutex_unlock(&q->mutex);
    if (is_last) free_image(image);
}

static void clear(tool_queue *q, tool_work *work) {
    if (work->image) leave_image(q, work->image);
    pg_inputs_close(&work->prompt);
    json_decref(work->answer);
    tool_job_free(&work->job);
    work->image = NULL;
    work->answer = NULL;
}

void tool_queue_close(tool_queue *q) {
    if (q->places) {
        pthread_mutex_lock(&q->mutex);
        atomic_store(&q->end, 1);
        pthread_cond_broadcast(&q->room);
        pthread_mutex_unlock(&q->mutex);
    }
    for (size_t i = 0; i < q->n_started; i++) pthread_join(q->readers[i], NULL);
    for (; q->first < q->next; q->first++) clear(q, &q->places[q->first % q->n_places]);
    free(q->places);
    free(q->readers);
    q->places = NULL;
    q->readers = NULL;
}

/* ---- the model's side ---- */

static int is_waiting(const tool_work *work) {
    return work->state == TOOL_WORK_WAITS && (!work->image || work->image->is_read);
}

/* Those that are ready with an error need no model. Returns whether there was one. */
static int drop_failed(tool_queue *q) {
    int any = 0;
    for (uint64_t i = q->first; i < q->next; i++) {
        tool_work *work = &q->places[i % q->n_places];
        if (!is_waiting(work) || (work->image && !work->image->error)) continue;
        if (!work->job.error) work->job.error = work->image ? strdup(work->image->error) : NULL;
        work->state = TOOL_WORK_DONE;
        any = 1;
    }
    return any;
}

static int is_alike(const tool_work *a, const tool_work *b) {
    return a->job.most_tokens == b->job.most_tokens && a->job.task == b->job.task;
}

static int64_t distance(const tool_work *a, const tool_work *b) {
    return a->n_tokens < b->n_tokens ? b->n_tokens - a->n_tokens : a->n_tokens - b->n_tokens;
}

/* The first that waits, and those that may run with it: the nearest in length, of equally near ones the first. *n_held:
 * jobs that readers have. Returns how many. */
static size_t choose(tool_queue *q, size_t most, tool_work **out, size_t *n_held) {
    size_t n = 0;
    *n_held = 0;
    for (uint64_t i = q->first; i < q->next; i++) {
        tool_work *work = &q->places[i % q->n_places];
        *n_held += work->state == TOOL_WORK_READ || (work->state == TOOL_WORK_WAITS && !is_waiting(work));
        if (!is_waiting(work) || (n > 0 && !is_alike(out[0], work))) continue;
        if (n == most && (most == 1 || distance(out[0], out[n - 1]) <= distance(out[0], work))) continue;
        size_t at = n < most ? n++ : n - 1;
        for (; at > 1 && distance(out[0], out[at - 1]) > distance(out[0], work); at--) out[at] = out[at - 1];
        out[at] = work;
    }
    return n;
}

/* Whether a job came before the time was over. */
static int wait_moment(tool_queue *q) {
    const size_t before = q->n_arrived;
    return tool_condition_wait(&q->ready, &q->mutex, MOMENT) == 0 || q->n_arrived != before;
}

size_t tool_queue_take(tool_queue *q, size_t most, tool_work **out, int *is_over) {
    size_t n, n_held;
    pthread_mutex_lock(&q->mutex);
    for (;;) {
        const int failed = drop_failed(q), is_full = q->next - q->first == q->n_places;
        n = choose(q, most, out, &n_held);
        *is_over = q->n_ended == q->n_started && n == 0;
        if (failed) n = 0; /* their results first: the caller comes again */
        if (failed || *is_over || n == most) break;
        if (n > 0 && n_held == 0 && (is_full || atomic_load(&q->end))) break;
        if (!wait_moment(q)) break; /* whoever brings no more for so long keeps nobody waiting */
    }
    for (size_t i = 0; i < n; i++) out[i]->state = TOOL_WORK_RUNS;
    pthread_mutex_unlock(&q->mutex);
    return n;
}

tool_work *tool_queue_next_done(tool_queue *q) {
    tool_work *found = NULL;
    pthread_mutex_lock(&q->mutex);
    for (uint64_t i = q->first; i < q->next && !found; i++) {
        tool_work *work = &q->places[i % q->n_places];
        if (work->state == TOOL_WORK_DONE) found = work;
        if (!q->unordered) break;
    }
    pthread_mutex_unlock(&q->mutex);
    return found;
}

void tool_queue_written(tool_queue *q, tool_work *work) {
    clear(q, work);
    pthread_mutex_lock(&q->mutex);
    work->state = TOOL_WORK_WRITTEN;
    while (q->first < q->next && q->places[q->first % q->n_places].state == TOOL_WORK_WRITTEN) q->first++;
    pthread_cond_signal(&q->room);
    pthread_mutex_unlock(&q->mutex);
}
