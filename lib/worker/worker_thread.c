/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a background thread. In each round it tells what has ended while it waited, begins at most one request,
 * and steps the rows that run together. So a row waits for one prefill at most between two of its tokens, and a request
 * for a step's time until it begins.
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/environment.h"
#include "worker/worker.h"

/* ---- ends ---- */

/* Calls on_event with the DONE event. The host cannot be told what it throws here. */
static void tell_done(pg_worker *worker, pgi_request *request) {
    const pg_worker_event shown = pgi_event_shown(&request->done);
    (void)pgi_worker_call(request, &shown);
    pgi_request_free(&worker->memory, request);
}

/* The request of a row ends; words: of an error. */
static void end_row(pgi_worker_row *row, pg_status status, const char *words) {
    pg_worker *worker = row->worker;
    pgi_request *request = row->request;
    if (!pgi_process_mark_is_here(&worker->mark)) { /* a callback forked: its end is the parent's to tell */
        row->request = NULL;
        return;
    }
    pgi_request_drop_image(&worker->memory, request);
    pthread_mutex_lock(&worker->mutex);
    row->request = NULL;
    (void)pgi_worker_end_request(worker, request, status, status < 0 ? words : "", NULL);
    pthread_mutex_unlock(&worker->mutex);
    if (request->options.on_event)
        tell_done(worker, request);
    else
        pgi_worker_tell(worker, request);
}

/* After a failed call: what the request is to end with came first, and the call failed by it. */
static void end_failed(pgi_worker_row *row, pg_status status) {
    char words[PGI_WORDS_SIZE];
    snprintf(words, sizeof words, "%s", pg_last_error());
    const pg_status reason = pgi_worker_row_check(row);
    end_row(row, reason < 0 ? reason : status, reason < 0 ? pg_last_error() : words);
}

/* ---- beginning ---- */

static int64_t count_running(const pgi_worker_thread *thread, int32_t *highest) {
    int64_t n = 0;
    for (int64_t r = 0; r < thread->n_rows; r++) {
        const pgi_request *request = thread->rows[r].request;
        if (!request) continue;
        if (n++ == 0 || request->options.priority > *highest) *highest = request->options.priority;
    }
    return n;
}

static pgi_worker_row *free_row(const pgi_worker_thread *thread) {
    for (int64_t r = 0; r < thread->n_rows; r++)
        if (!thread->rows[r].request) return &thread->rows[r];
    return NULL;
}

/* One more row. */
static pg_status new_row(pgi_worker_thread *thread, pgi_worker_row **out) {
    pgi_worker_row *row = &thread->rows[thread->n_rows];
    const pg_status status =
        pgi_worker_row_init(row, thread->worker, thread->n_rows > 0 ? thread->rows[0].session : NULL);
    if (status < 0) {
        pgi_worker_row_free(row);
        return status;
    }
    pthread_mutex_lock(&thread->worker->mutex);
    thread->n_rows++; /* from here on other threads look at it */
    pthread_mutex_unlock(&thread->worker->mutex);
    *out = row;
    return PG_OK;
}

/* Under the mutex: the request that may begin now on this thread. */
static pgi_request *next_request(const pgi_worker_thread *thread) {
    int32_t highest = 0;
    const int64_t n = count_running(thread, &highest);
    pgi_request *first = pgi_request_queue_first(&thread->worker->queue, PGI_BY_PRIORITY);
    if (!first || n == thread->worker->options.max_running) return NULL;
    return n == 0 || first->options.priority >= highest ? first : NULL;
}

/* Takes the next request into a row. Another thread may have been faster. */
static void begin_next(pgi_worker_thread *thread) {
    pg_worker *worker = thread->worker;
    pgi_worker_row *row = free_row(thread);
    if (!row && new_row(thread, &row) < 0) return; /* memory is short: the rows that are there have to do */
    pthread_mutex_lock(&worker->mutex);
    pgi_request *request = next_request(thread);
    if (request) {
        pgi_request_queue_take(&worker->queue, request);
        request->state = PGI_REQUEST_RUNS;
        request->began = pgi_now();
        worker->info.n_running++;
        pg_cancel_clear(row->cancel);
        row->request = request;
    }
    pthread_mutex_unlock(&worker->mutex);
    if (!request) return;
    const pg_status status = pgi_worker_row_prefill(row);
    if (status < 0) end_failed(row, status);
}

/* ---- steps ---- */

/* Feeds the last token of each of n rows, as one pass; rows that fail end. */
static void feed(pgi_worker_row **rows, int64_t n) {
    pg_session *sessions[PGI_MOST_RUNNING];
    pg_status statuses[PGI_MOST_RUNNING];
    char words[PGI_WORDS_SIZE];
    for (int64_t i = 0; i < n; i++) {
        sessions[i] = rows[i]->session;
        statuses[i] = PG_ERROR_STATE; /* of a call that looks at none */
    }
    const pg_status first = pg_session_step_together(sessions, n, NULL, statuses);
    snprintf(words, sizeof words, "%s", pg_last_error()); /* those of the first row that failed */
    for (int64_t i = 0; i < n; i++) {
        if (statuses[i] >= 0) continue;
        char other[PGI_WORDS_SIZE];
        snprintf(other, sizeof other, "a step failed: %s", pg_status_name(statuses[i]));
        const char *own = statuses[i] == first ? words : other;
        const pg_status reason = pgi_worker_row_check(rows[i]);
        end_row(rows[i], reason < 0 ? reason : statuses[i], reason < 0 ? pg_last_error() : own);
        rows[i] = NULL;
    }
}

/* A token of each row that runs. */
static void step(pgi_worker_thread *thread) {
    pg_worker *worker = thread->worker;
    pgi_worker_row *rows[PGI_MOST_RUNNING];
    int64_t n = 0;
    for (int64_t r = 0; r < thread->n_rows; r++) {
        pgi_worker_row *row = &thread->rows[r];
        if (!row->request) continue;
        const pg_status reason = pgi_worker_row_check(row);
        if (reason < 0)
            end_row(row, reason, pg_last_error());
        else
            rows[n++] = row;
    }
    if (n == 0) return;
    pthread_mutex_lock(&worker->mutex);
    worker->info.n_steps++;
    worker->info.n_step_rows += n;
    pthread_mutex_unlock(&worker->mutex);
    if (n > 1) feed(rows, n); /* one alone is fed by pg_session_sample() */
    for (int64_t i = 0; i < n; i++) {
        if (!rows[i]) continue;
        const pg_status status = pgi_worker_row_sample(rows[i]);
        if (status < 0)
            end_failed(rows[i], status);
        else if (status == PG_EVENT_STOP)
            end_row(rows[i], PG_OK, NULL);
    }
}

/* ---- rounds ---- */

/* Sleeps while there is nothing to do. A request that ended while it waited, and whose on_event is to be called: it is
 * this thread's then. *closing: there is nothing to do but that. */
static pgi_request *wait_for_work(pgi_worker_thread *thread, int *closing) {
    pg_worker *worker = thread->worker;
    int32_t unused = 0;
    pthread_mutex_lock(&worker->mutex);
    while (!worker->to_tell && !atomic_load(&worker->closing) && !next_request(thread) &&
           count_running(thread, &unused) == 0)
        pthread_cond_wait(&worker->work, &worker->mutex);
    *closing = atomic_load(&worker->closing) && count_running(thread, &unused) == 0;
    pgi_request *told = worker->to_tell;
    if (told) {
        worker->to_tell = told->next_to_tell;
        worker->n_to_tell--;
        if (!worker->to_tell) worker->to_tell_end = &worker->to_tell;
    }
    pthread_mutex_unlock(&worker->mutex);
    return told;
}

static int may_begin(pgi_worker_thread *thread) {
    pthread_mutex_lock(&thread->worker->mutex);
    const int may = next_request(thread) != NULL;
    pthread_mutex_unlock(&thread->worker->mutex);
    return may;
}

static void work_until_closed(pgi_worker_thread *thread) {
    for (int closing = 0;;) {
        if (!pgi_process_mark_is_here(&thread->worker->mark)) return; /* a callback forked: the child's call ends */
        pgi_worker_end_late(thread->worker);
        pgi_request *told = wait_for_work(thread, &closing);
        if (told) {
            pgi_request_drop_image(&thread->worker->memory, told);
            tell_done(thread->worker, told);
            continue;
        }
        if (closing) return;
        if (may_begin(thread)) begin_next(thread);
        step(thread);
    }
}

/* The priority and the CPUs come first: the threads of the session take them over. */
static pg_status start(pgi_worker_thread *thread) {
    PGI_TRY(pgi_thread_settings_apply(&thread->worker->settings));
    pgi_worker_row *row;
    return new_row(thread, &row);
}

void pgi_worker_live(pgi_worker_thread *thread) {
    pg_worker *worker = thread->worker;
    pgi_environment environment;
    pgi_environment_enter(&environment);
    const pg_status status = start(thread);
    pthread_mutex_lock(&worker->mutex);
    worker->n_started++;
    if (status < 0 && worker->started == PG_OK) {
        worker->started = status;
        snprintf(worker->words, sizeof worker->words, "%s", pg_last_error());
    }
    pthread_cond_broadcast(&worker->work);
    pthread_mutex_unlock(&worker->mutex);
    if (status >= 0) work_until_closed(thread);
    pgi_environment_restore(&environment);
}
