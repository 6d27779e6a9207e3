/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker: background threads that own sessions, in front of them a queue of requests and behind them one of events.
 *
 * It is written on the public header, as a program of a host would be: models, processors, sessions, detokenizers and
 * answers are used by their pg_ functions alone. From lib/base it takes what a host would bring itself: memory, which
 * is the host's allocator here, threads, a clock, and the border to the host's callbacks.
 */
#ifndef PGI_WORKER_WORKER_H
#define PGI_WORKER_WORKER_H

#include <pthread.h>

#include "base/in_use.h"
#include "base/process_mark.h"
#include "base/thread_settings.h"
#include "worker/request_queue.h"

enum { PGI_MOST_WORKERS = 64, PGI_MOST_RUNNING = 64 };

struct pg_worker;

/* A row that runs on a background thread: a request in a session. */
typedef struct pgi_worker_row {
    struct pg_worker *worker;
    pg_session *session; /* NULL: it has not been needed yet */
    pg_detokenizer *detokenizer;
    pg_cancel *cancel;    /* of its calls; set under the worker's mutex */
    pgi_request *request; /* NULL: the row is free */

    /* of an answer whose objects are wanted */
    int32_t width, height; /* of the image */
    pg_window window;      /* of it */
    int64_t *ids;          /* [max_new_tokens] */
    float *log_probs;      /* [max_new_tokens] */
    int64_t n_objects;     /* of them, told */
} pgi_worker_row;

/* One of the background threads. */
typedef struct pgi_worker_thread {
    struct pg_worker *worker;
    pthread_t id;
    int is_there;         /* the system gave it */
    pgi_worker_row *rows; /* [max_running]; their requests change under the mutex */
    int64_t n_rows;       /* that have a session, the first ones; changes under the mutex */
} pgi_worker_thread;

struct pg_worker {
    atomic_int references; /* the handle, each thread, and each call under way */
    pgi_memory memory;
    pg_model *model;         /* counted */
    pg_processor *processor; /* counted */
    int64_t vocab_size;
    pg_worker_options options; /* complete; its cpus are in the settings */
    pgi_thread_settings settings;
    pgi_process_mark mark;
    pgi_worker_thread *threads; /* [options.n_workers] */

    pthread_mutex_t mutex;
    pthread_cond_t work;     /* there may be something for the threads, or one of them has begun */
    pgi_request_queue queue; /* this and what follows: of the mutex */
    pgi_request *to_tell;    /* ended while they waited, and have on_event; the oldest first */
    pgi_request **to_tell_end;
    int32_t n_to_tell;
    int64_t last_ticket;
    int32_t n_started; /* threads that have their first session, or could not get it */
    pg_status started; /* PG_OK, or what one of them failed with: */
    char words[PGI_WORDS_SIZE];
    pg_worker_info info; /* but for n_waiting and n_not_polled */
    atomic_int closing;  /* written under the mutex */

    pgi_event_queue events;
    pgi_in_use polling;
    pgi_event *polled; /* the last one, which its reader may still look at */
    atomic_int n_not_polled;
    atomic_int reader_sleeps;
    pthread_mutex_t news_mutex;
    pthread_cond_t news; /* an event, for a reader that sleeps */
};

/* model, processor: one reference of each becomes the worker's, also after an error. options: complete. */
pg_status pgi_worker_create(const pgi_memory *memory, pg_model *model, pg_processor *processor, int64_t vocab_size,
                            const pg_worker_options *options, const pgi_thread_settings *settings, pg_worker **out);
void pgi_worker_close(pg_worker *worker);

/* Around each call: PG_ERROR_STATE in a child of fork(), and when the worker was closed meanwhile. */
pg_status pgi_worker_begin(pg_worker *worker);
pg_status pgi_worker_end(pg_worker *worker, pg_status status);

/* PG_ERROR_BUSY, which is counted, when a request of this stream would be refused now. */
pg_status pgi_worker_admit(pg_worker *worker, int64_t stream);
/* Takes over a request, also after an error. */
pg_status pgi_worker_submit(pg_worker *worker, pgi_request *request, int64_t *ticket);
pg_status pgi_worker_cancel(pg_worker *worker, int64_t ticket);
/* PG_OK: *shown is an event; PG_EVENT_NONE. seconds: how long to wait for one. */
pg_status pgi_worker_wait(pg_worker *worker, double seconds, pg_worker_event *shown);
pg_worker_info pgi_worker_info(pg_worker *worker);

/* ---- for the threads ---- */

/* The whole life of a thread. */
void pgi_worker_live(pgi_worker_thread *thread);
/* Under the mutex: a request ends, and is neither waiting nor known any more. It is given back when the caller is to
 * tell it, without the mutex; NULL: a background thread is. *image: the request's copy of it, which the caller frees
 * without the mutex; image NULL: it stays. */
pgi_request *pgi_worker_end_request(pg_worker *worker, pgi_request *request, pg_status status, const char *words,
                                    void **image);
/* Ends and tells requests whose deadline has passed while they waited. */
void pgi_worker_end_late(pg_worker *worker);
/* Calls on_event; what it throws is the status. */
pg_status pgi_worker_call(const pgi_request *request, const pg_worker_event *shown);
/* Puts an event where it is polled. */
void pgi_worker_put(pg_worker *worker, pgi_event *event);
/* Puts the DONE event of a request without on_event there. */
void pgi_worker_tell(pg_worker *worker, pgi_request *request);

/* ---- rows: row.c ---- */

/* Makes the session of a row, on the threads of the first one's (NULL: this is the first). On error
 * pgi_worker_row_free() is due, too. */
pg_status pgi_worker_row_init(pgi_worker_row *row, struct pg_worker *worker, pg_session *first);
void pgi_worker_row_free(pgi_worker_row *row);

/* Why the request is to end now: PG_OK, PG_ERROR_CANCELLED, _REPLACED, _DEADLINE, with the words. */
pg_status pgi_worker_row_check(const pgi_worker_row *row);

/* Computes image and prompt of the row's request. */
pg_status pgi_worker_row_prefill(pgi_worker_row *row);
/* Chooses the next token, whose logits are there, and tells what it completes. PG_EVENT_STOP: the text has ended, for
 * the reason in request->stop. */
pg_status pgi_worker_row_sample(pgi_worker_row *row);

#endif
