/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* A worker as its host sees it: made, given requests, asked for events, closed. What the threads do is in
 * worker_thread.c. */
#include "worker/worker.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/own_thread.h"

enum { MOST_TO_TELL = 4096 /* requests: a thread that computes an image tells them later */ };

/* ---- beginning and end ---- */

/* The DONE event lies in its request. NULL is ignored. */
static void free_event(const pg_worker *worker, pgi_event *event) {
    if (event && event->kind == PG_WORKER_EVENT_DONE)
        pgi_request_free(&worker->memory, event->request);
    else
        pgi_free(&worker->memory, event);
}

static void free_events(pg_worker *worker) {
    for (pgi_event *event; (event = (pgi_event *)pgi_event_queue_take(&worker->events));) free_event(worker, event);
}

/* What the last poll gave out. */
static void free_polled(pg_worker *worker) {
    free_event(worker, worker->polled);
    worker->polled = NULL;
}

/* Requests that wait, and those that are to be told, are there in a child of fork() alone. In it, what a thread of the
 * parent was just changing stays allocated: a request that runs, a session in a call, events that were being polled. */
static void free_worker(pg_worker *worker) {
    const pgi_memory memory = worker->memory;
    const int is_here = pgi_process_mark_is_here(&worker->mark);
    pg_model *model = worker->model;
    pg_processor *processor = worker->processor;
    if (pgi_in_use_begin(&worker->polling, "worker's events") == PG_OK) {
        free_polled(worker);
        free_events(worker);
    }
    for (int32_t t = 0; worker->threads && t < worker->options.n_workers; t++) {
        pgi_worker_thread *thread = &worker->threads[t];
        for (int64_t r = 0; r < thread->n_rows; r++) pgi_worker_row_free(&thread->rows[r]);
        pgi_free(&memory, thread->rows);
    }
    pgi_free(&memory, worker->threads);
    while (worker->queue.n_waiting > 0) {
        pgi_request *request = pgi_request_queue_first(&worker->queue, PGI_BY_PRIORITY);
        pgi_request_queue_take(&worker->queue, request);
        pgi_request_free(&memory, request);
    }
    for (pgi_request *request; (request = worker->to_tell);) {
        worker->to_tell = request->next_to_tell;
        pgi_request_free(&memory, request);
    }
    pgi_request_queue_free(&worker->queue, &memory);
    if (is_here) { /* in a child a thread of the parent may seem to wait at them */
        pthread_cond_destroy(&worker->news);
        pthread_mutex_destroy(&worker->news_mutex);
        pthread_cond_destroy(&worker->work);
        pthread_mutex_destroy(&worker->mutex);
    }
    pgi_process_mark_free(&worker->mark);
    pgi_free(&memory, worker);
    pg_processor_close(&processor);
    pg_model_close(&model);
}

static void retain(pg_worker *worker) { atomic_fetch_add_explicit(&worker->references, 1, memory_order_relaxed); }

static void release(pg_worker *worker) {
    if (atomic_fetch_sub_explicit(&worker->references, 1, memory_order_acq_rel) == 1) free_worker(worker);
}

/* The whole life of a thread: also of its reference. */
static void *live(void *user) {
    pgi_worker_thread *thread = user;
    pg_worker *worker = thread->worker;
    pgi_worker_live(thread);
    release(worker);
    return NULL;
}

static void init_locks(pg_worker *worker) {
    pthread_mutex_init(&worker->mutex, NULL);
    pthread_mutex_init(&worker->news_mutex, NULL);
    pthread_cond_init(&worker->work, NULL);
    pgi_condition_init(&worker->news);
}

static pg_status allocate(pg_worker *worker) {
    const pg_worker_options *options = &worker->options;
    const size_t n_workers = (size_t)options->n_workers, n_rows = (size_t)options->max_running;
    PGI_TRY(pgi_request_queue_init(&worker->queue, &worker->memory, (size_t)options->max_waiting, n_workers * n_rows));
    worker->threads = pgi_alloc_zero(&worker->memory, n_workers, sizeof *worker->threads);
    if (!worker->threads) return PG_ERROR_MEMORY;
    for (size_t t = 0; t < n_workers; t++) {
        worker->threads[t].worker = worker;
        worker->threads[t].rows = pgi_alloc_zero(&worker->memory, n_rows, sizeof(pgi_worker_row));
        if (!worker->threads[t].rows) return PG_ERROR_MEMORY;
    }
    return PG_OK;
}

/* Starts the threads, fewer where the system refuses one, and waits until each has its first session or the reason why
 * not. */
static pg_status start(pg_worker *worker) {
    int32_t n = 0;
    int error = 0;
    for (; n < worker->options.n_workers; n++) {
        pgi_worker_thread *thread = &worker->threads[n];
        retain(worker);
        error = pgi_own_thread_start(&thread->id, live, thread);
        if (error) {
            atomic_fetch_sub(&worker->references, 1);
            break;
        }
        thread->is_there = 1;
    }
    pthread_mutex_lock(&worker->mutex);
    while (worker->n_started < n) pthread_cond_wait(&worker->work, &worker->mutex);
    pthread_mutex_unlock(&worker->mutex);
    if (worker->started < 0) return pgi_error(worker->started, "%s", worker->words);
    if (n > 0) return PG_OK;
    return pgi_error(PG_ERROR_MEMORY, "the system refused a background thread (error %d), expected one at least",
                     error);
}

pg_status pgi_worker_create(const pgi_memory *memory, pg_model *model, pg_processor *processor, int64_t vocab_size,
                            const pg_worker_options *options, const pgi_thread_settings *settings, pg_worker **out) {
    pg_worker *worker = pgi_alloc_zero(memory, 1, sizeof *worker);
    if (!worker) {
        pg_processor_close(&processor);
        pg_model_close(&model);
        return PG_ERROR_MEMORY;
    }
    atomic_init(&worker->references, 1);
    worker->memory = *memory;
    worker->model = model;
    worker->processor = processor;
    worker->options = *options;
    worker->settings = *settings;
    worker->to_tell_end = &worker->to_tell;
    worker->info.struct_size = sizeof worker->info;
    pgi_event_queue_init(&worker->events);
    pgi_process_mark_set(&worker->mark);
    init_locks(worker);
    worker->vocab_size = vocab_size;
    pg_status status = allocate(worker);
    if (status >= 0) status = start(worker);
    if (status < 0)
        pgi_worker_close(worker);
    else
        *out = worker;
    return status;
}

static int is_own_thread(const pg_worker *worker) {
    for (int32_t t = 0; worker->threads && t < worker->options.n_workers; t++)
        if (worker->threads[t].is_there && pthread_equal(worker->threads[t].id, pthread_self())) return 1;
    return 0;
}

/* In a child of fork() no thread is here to be ended, but one whose callback forked: it goes on with the worker until
 * the callback returns. What they were changing when the process was copied is whole if nobody held the mutex then;
 * else all of it stays allocated. */
static void close_in_child(pg_worker *worker) {
    if (is_own_thread(worker)) return;
    if (pthread_mutex_trylock(&worker->mutex) == 0) free_worker(worker);
}

/* Under the mutex: ends all requests that wait. Those that the caller is to tell are given back as a list. */
static pgi_request *end_waiting(pg_worker *worker) {
    pgi_request *ended = NULL, **end = &ended, *first;
    while ((first = pgi_request_queue_first(&worker->queue, PGI_BY_PRIORITY)) != NULL) {
        first =
            pgi_worker_end_request(worker, first, PG_ERROR_CANCELLED, "the worker was closed while it waited", NULL);
        if (!first) continue;
        *end = first;
        end = &first->next_to_tell;
    }
    *end = NULL;
    return ended;
}

void pgi_worker_close(pg_worker *worker) {
    if (!pgi_process_mark_is_here(&worker->mark)) {
        close_in_child(worker);
        return;
    }
    pthread_mutex_lock(&worker->mutex);
    atomic_store(&worker->closing, 1);        /* from here on no request comes, */
    pgi_request *ended = end_waiting(worker); /* and none begins */
    for (int32_t t = 0; worker->threads && t < worker->options.n_workers; t++)
        for (int64_t r = 0; r < worker->threads[t].n_rows; r++) pg_cancel_request(worker->threads[t].rows[r].cancel);
    pthread_cond_broadcast(&worker->work);
    pthread_mutex_unlock(&worker->mutex);
    while (ended) {
        pgi_request *told = ended;
        ended = told->next_to_tell; /* before a reader frees it */
        pgi_worker_tell(worker, told);
    }
    pthread_mutex_lock(&worker->news_mutex);
    pthread_cond_broadcast(&worker->news);
    pthread_mutex_unlock(&worker->news_mutex);
    const int from_callback = is_own_thread(worker);
    for (int32_t t = 0; worker->threads && t < worker->options.n_workers; t++) {
        if (!worker->threads[t].is_there) continue;
        if (from_callback)
            pthread_detach(worker->threads[t].id);
        else
            pthread_join(worker->threads[t].id, NULL);
    }
    release(worker);
}

pg_status pgi_worker_begin(pg_worker *worker) {
    if (!pgi_process_mark_is_here(&worker->mark))
        return pgi_error(PG_ERROR_STATE,
                         "the worker was made in another process, of which this one is a child by fork(): its threads "
                         "are there; make a worker here");
    retain(worker);
    return PG_OK;
}

pg_status pgi_worker_end(pg_worker *worker, pg_status status) {
    release(worker);
    return status;
}

static pg_status closed_error(void) { return pgi_error(PG_ERROR_STATE, "the worker was closed during the call"); }

/* ---- requests ---- */

/* Under the mutex: whether one more of this stream is refused. */
static pg_status check_room(pg_worker *worker, int64_t stream) {
    const pg_worker_options *options = &worker->options;
    const int32_t most = options->max_waiting + options->n_workers * options->max_running;
    const int32_t n_waiting = (int32_t)worker->queue.n_waiting, n_ended = atomic_load(&worker->n_not_polled);
    if (atomic_load(&worker->closing)) return closed_error();
    if (n_ended >= most) {
        worker->info.n_busy++;
        return pgi_error(PG_ERROR_BUSY,
                         "found %d requests that have ended and whose events were not polled, expected fewer than %d: "
                         "call pg_worker_poll() until it has no more",
                         n_ended, most);
    }
    if (worker->n_to_tell >= MOST_TO_TELL) {
        worker->info.n_busy++;
        return pgi_error(PG_ERROR_BUSY,
                         "found %d requests that have ended and whose on_event is still to be called, expected fewer: "
                         "submit later",
                         worker->n_to_tell);
    }
    if (n_waiting < options->max_waiting || (stream && pgi_request_queue_by_stream(&worker->queue, stream)))
        return PG_OK;
    worker->info.n_busy++;
    return pgi_error(PG_ERROR_BUSY,
                     "found %d requests that wait, expected fewer than max_waiting, %d: submit later, or give requests "
                     "a stream, of which the newest takes the place of the one that waits",
                     n_waiting, options->max_waiting);
}

pg_status pgi_worker_admit(pg_worker *worker, int64_t stream) {
    pthread_mutex_lock(&worker->mutex);
    const pg_status status = check_room(worker, stream);
    pthread_mutex_unlock(&worker->mutex);
    return status;
}

/* Under the mutex: requests of the stream make room for a newer one. The one that waits is given back where the caller
 * is to tell it. */
static pgi_request *replace(pg_worker *worker, const pgi_request *by, void **image) {
    char words[PGI_WORDS_SIZE];
    const int64_t stream = by->options.stream;
    if (stream == 0) return NULL;
    pgi_request *waiting = pgi_request_queue_by_stream(&worker->queue, stream);
    if (waiting) {
        snprintf(words, sizeof words, "a newer request of stream %lld, ticket %lld, took the place of ticket %lld",
                 (long long)stream, (long long)by->ticket, (long long)waiting->ticket);
        waiting = pgi_worker_end_request(worker, waiting, PG_ERROR_REPLACED, words, image);
    }
    if (!(by->options.flags & PG_REQUEST_CANCEL_RUNNING)) return waiting;
    for (int32_t t = 0; t < worker->options.n_workers; t++)
        for (int64_t r = 0; r < worker->threads[t].n_rows; r++) {
            const pgi_worker_row *row = &worker->threads[t].rows[r];
            if (!row->request || row->request->options.stream != stream) continue;
            int none = 0;
            atomic_compare_exchange_strong(&row->request->ends, &none, PG_ERROR_REPLACED);
            pg_cancel_request(row->cancel);
        }
    return waiting;
}

pg_status pgi_worker_submit(pg_worker *worker, pgi_request *request, int64_t *ticket) {
    pgi_request *replaced = NULL;
    void *image = NULL;
    pthread_mutex_lock(&worker->mutex);
    const pg_status status = check_room(worker, request->options.stream);
    if (status >= 0) {
        request->ticket = ++worker->last_ticket;
        if (ticket) *ticket = request->ticket;
        const int64_t stream = request->options.stream;
        const pgi_request *waits = stream ? pgi_request_queue_by_stream(&worker->queue, stream) : NULL;
        request->turn = waits ? waits->turn : request->ticket;
        replaced = replace(worker, request, &image);
        pgi_request_queue_add(&worker->queue, request);
        worker->info.n_accepted++;
        pthread_cond_signal(&worker->work);
    }
    pthread_mutex_unlock(&worker->mutex);
    pgi_free(&worker->memory, image);
    if (status < 0) pgi_request_free(&worker->memory, request);
    if (replaced) pgi_worker_tell(worker, replaced);
    return status;
}

/* Under the mutex: the row that a request runs in. */
static const pgi_worker_row *row_of(const pg_worker *worker, const pgi_request *request) {
    for (int32_t t = 0; t < worker->options.n_workers; t++)
        for (int64_t r = 0; r < worker->threads[t].n_rows; r++)
            if (worker->threads[t].rows[r].request == request) return &worker->threads[t].rows[r];
    return NULL;
}

pg_status pgi_worker_cancel(pg_worker *worker, int64_t ticket) {
    pgi_request *ended = NULL;
    void *image = NULL;
    pthread_mutex_lock(&worker->mutex);
    const int64_t last = worker->last_ticket;
    pgi_request *request = pgi_request_queue_by_ticket(&worker->queue, ticket);
    if (request && request->state == PGI_REQUEST_WAITS) {
        ended =
            pgi_worker_end_request(worker, request, PG_ERROR_CANCELLED, "cancelled by request while it waited", &image);
    } else if (request) {
        int none = 0;
        atomic_compare_exchange_strong(&request->ends, &none, PG_ERROR_CANCELLED);
        const pgi_worker_row *row = row_of(worker, request);
        if (row) pg_cancel_request(row->cancel);
    }
    pthread_mutex_unlock(&worker->mutex);
    pgi_free(&worker->memory, image);
    if (ended) pgi_worker_tell(worker, ended);
    if (ticket >= 1 && ticket <= last) return PG_OK;
    return pgi_error(PG_ERROR_ARGUMENT, "ticket is %lld, expected one that pg_worker_submit() gave: 1 to %lld",
                     (long long)ticket, (long long)last);
}

pg_worker_info pgi_worker_info(pg_worker *worker) {
    pthread_mutex_lock(&worker->mutex);
    pg_worker_info info = worker->info;
    info.n_waiting = (int32_t)worker->queue.n_waiting;
    pthread_mutex_unlock(&worker->mutex);
    info.n_not_polled = atomic_load(&worker->n_not_polled);
    return info;
}

/* ---- ends ---- */

pgi_request *pgi_worker_end_request(pg_worker *worker, pgi_request *request, pg_status status, const char *words,
                                    void **image) {
    pg_worker_info *info = &worker->info;
    const int waited = request->state == PGI_REQUEST_WAITS;
    if (waited)
        pgi_request_queue_take(&worker->queue, request);
    else
        info->n_running--;
    pgi_request_queue_forget(&worker->queue, request);
    request->state = PGI_REQUEST_ENDED;
    request->status = status;
    request->ended = pgi_now();
    snprintf(request->words, sizeof request->words, "%s", words);
    if (image) {
        *image = request->image_block;
        request->image_block = NULL;
    }
    switch (status) {
        case PG_OK: info->n_done++; break;
        case PG_ERROR_CANCELLED: info->n_cancelled++; break;
        case PG_ERROR_REPLACED: info->n_replaced++; break;
        case PG_ERROR_DEADLINE: info->n_late++; break;
        default: info->n_failed++;
    }
    if (!request->options.on_event) {
        atomic_fetch_add(&worker->n_not_polled, 1);
    } else if (waited) { /* a background thread calls on_event */
        *worker->to_tell_end = request;
        worker->to_tell_end = &request->next_to_tell;
        worker->n_to_tell++;
        pthread_cond_signal(&worker->work);
        return NULL;
    }
    return request;
}

void pgi_worker_end_late(pg_worker *worker) {
    if (!pgi_process_mark_is_here(&worker->mark)) return; /* a callback forked, and the mutex may be taken for ever */
    for (int found = 1; found;) {
        char words[PGI_WORDS_SIZE];
        pgi_request *ended = NULL;
        void *image = NULL;
        const double now = pgi_now();
        pthread_mutex_lock(&worker->mutex);
        pgi_request *first = pgi_request_queue_first(&worker->queue, PGI_BY_DEADLINE);
        found = first && now > first->deadline;
        if (found) {
            snprintf(words, sizeof words,
                     "ticket %lld still waited when its deadline passed, %g s after it was submitted",
                     (long long)first->ticket, first->options.deadline);
            ended = pgi_worker_end_request(worker, first, PG_ERROR_DEADLINE, words, &image);
        }
        pthread_mutex_unlock(&worker->mutex);
        pgi_free(&worker->memory, image);
        if (ended) pgi_worker_tell(worker, ended);
    }
}

/* A reader that is about to sleep says so, and then looks once more whether there is an event; who puts one in looks
 * for a sleeper afterwards. Both are sequentially consistent, so one of them sees the other. */
void pgi_worker_put(pg_worker *worker, pgi_event *event) {
    pgi_event_queue_put(&worker->events, &event->node);
    if (!atomic_load(&worker->reader_sleeps)) return;
    pthread_mutex_lock(&worker->news_mutex);
    pthread_cond_signal(&worker->news);
    pthread_mutex_unlock(&worker->news_mutex);
}

void pgi_worker_tell(pg_worker *worker, pgi_request *request) {
    pgi_request_drop_image(&worker->memory, request);
    pgi_worker_put(worker, &request->done);
}

/* ---- events ---- */

static pg_status poll(pg_worker *worker, pg_worker_event *shown) {
    free_polled(worker);
    pgi_event *event = (pgi_event *)pgi_event_queue_take(&worker->events);
    if (!event) return PG_EVENT_NONE;
    worker->polled = event;
    if (event->kind == PG_WORKER_EVENT_DONE) atomic_fetch_sub(&worker->n_not_polled, 1);
    *shown = pgi_event_shown(event);
    return PG_OK;
}

/* Sleeps until there may be an event, `until` by pgi_now() at most. */
static void sleep_until(pg_worker *worker, double until) {
    pthread_mutex_lock(&worker->news_mutex);
    atomic_store(&worker->reader_sleeps, 1);
    if (!pgi_event_queue_has(&worker->events) && !atomic_load(&worker->closing))
        pgi_condition_wait(&worker->news, &worker->news_mutex, until - pgi_now());
    atomic_store(&worker->reader_sleeps, 0);
    pthread_mutex_unlock(&worker->news_mutex);
}

/* An event that is just being put in by a thread without a CPU: it is let run. */
static void let_others_run(void) { nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL); }

pg_status pgi_worker_wait(pg_worker *worker, double seconds, pg_worker_event *shown) {
    const double until = seconds > 0 ? pgi_now() + seconds : 0;
    PGI_TRY(pgi_in_use_begin(&worker->polling, "worker's events"));
    pg_status status = poll(worker, shown);
    while (status == PG_EVENT_NONE && seconds > 0 && pgi_now() < until) {
        if (atomic_load(&worker->closing)) {
            status = closed_error();
            break;
        }
        if (pgi_event_queue_has(&worker->events))
            let_others_run();
        else
            sleep_until(worker, until);
        status = poll(worker, shown);
    }
    (void)pgi_in_use_end(&worker->polling); /* closing leaves the worker to the references */
    return status;
}
